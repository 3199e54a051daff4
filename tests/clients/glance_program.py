"""What programs do with the unmodified glanceclient and openstacksdk; run with the Python that has them.

glance_program.py glance1|glance2|sdk ENDPOINT FILE      prints JSON: what was seen at each step
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from pathlib import Path
from typing import Any


def glance1(endpoint: str, file: Path) -> dict[str, Any]:
    """Images API v1 by glanceclient."""
    from glanceclient import Client, exc

    client = Client("1", endpoint, token="any")
    with file.open("rb") as data:
        image = client.images.create(
            name="two words 100%", disk_format="raw", container_format="bare", data=data, is_public=True,
            properties={"os": "linux"},
        )  # fmt: skip
    seen: dict[str, Any] = {"status": image.status, "checksum": image.checksum, "name": image.name}
    seen["listed"] = [one.id == image.id for one in client.images.list(page_size=1, filters={"name": image.name})]
    shown = client.images.get(image.id)
    seen["shown"] = [shown.name, shown.properties, shown.is_public, shown.size]
    seen["data"] = hashlib.sha256(b"".join(client.images.data(image.id))).hexdigest()
    seen["updated"] = client.images.update(image.id, name="other", purge_props=False).properties
    client.image_members.create(image.id, "tenant", can_share=True)
    seen["members"] = [[one.member_id, one.can_share] for one in client.image_members.list(image=image.id)]
    seen["shared"] = [one.image_id == image.id for one in client.image_members.list(member="tenant")]
    client.image_members.delete(image.id, "tenant")
    reserved = client.images.create(name="reserved", disk_format="raw", container_format="bare")
    with file.open("rb") as data:
        seen["later"] = client.images.update(reserved.id, data=data).status
    client.images.delete(image.id)
    client.images.delete(reserved.id)
    seen["errors"] = _errors(exc.HTTPException, [
        lambda: client.images.get("nothing"),
        lambda: client.images.delete(image.id),
        lambda: client.images.create(name="x", id=reserved.id),
        lambda: client.images.create(name="x", location="http://example.org/"),
    ])  # fmt: skip
    return seen


def glance2(endpoint: str, file: Path) -> dict[str, Any]:
    """Images API v2 by glanceclient."""
    from glanceclient import Client, exc

    client = Client("2", endpoint, token="any")
    image = client.images.create(name="ü", disk_format="raw", container_format="bare", os_type="linux", tags=["t"])
    with file.open("rb") as data:
        client.images.upload(image.id, data)
    shown = client.images.get(image.id)
    seen: dict[str, Any] = {"status": shown.status, "checksum": shown.checksum, "name": shown.name}
    seen["listed"] = [one.id == image.id for one in client.images.list(page_size=1, filters={"name": "ü"})]
    # It verifies the multihash, or md5, of what it reads.
    seen["data"] = hashlib.sha256(b"".join(client.images.data(image.id))).hexdigest()
    changed = client.images.update(image.id, remove_props=["os_type"], name="new", other="x", min_ram=5)
    seen["updated"] = [changed.name, changed.other, changed.min_ram, "os_type" in changed]
    client.image_tags.update(image.id, "u")
    client.image_tags.delete(image.id, "t")
    seen["tags"] = client.images.get(image.id).tags
    client.image_members.create(image.id, "tenant")
    client.image_members.update(image.id, "tenant", "accepted")
    seen["members"] = [[one.member_id, one.status] for one in client.image_members.list(image.id)]
    client.image_members.delete(image.id, "tenant")
    client.images.deactivate(image.id)
    seen["deactivated"] = client.images.get(image.id).status
    client.images.reactivate(image.id)
    seen["versions"] = sorted({one["id"].split(".")[0] for one in client.versions.list()})
    client.images.delete(image.id)
    seen["errors"] = _errors(exc.HTTPException, [
        lambda: client.images.get("nothing"),
        lambda: client.images.delete(image.id),
        lambda: client.images.upload(image.id, io.BytesIO(b"x")),
    ])  # fmt: skip
    return seen


def sdk(endpoint: str, file: Path) -> dict[str, Any]:
    """openstacksdk, without Keystone."""
    import openstack

    cloud = openstack.connect(auth_type="none", image_endpoint_override=f"{endpoint}/v2", endpoint=endpoint)
    image = cloud.image.create_image(
        "sdk image", filename=str(file), disk_format="raw", container_format="bare", wait=True, os_type="linux"
    )
    shown = cloud.image.get_image(image.id)
    seen: dict[str, Any] = {"status": shown.status, "checksum": shown.checksum, "name": shown.name}
    seen["listed"] = [one.id == image.id for one in cloud.image.images(name="sdk image")]
    seen["data"] = hashlib.sha256(cloud.image.download_image(image.id).content).hexdigest()
    seen["updated"] = cloud.image.update_image(image.id, name="new").name
    cloud.image.add_tag(image.id, "t")
    seen["tags"] = cloud.image.get_image(image.id).tags
    cloud.image.add_member(image.id, member_id="tenant")
    cloud.image.update_member("tenant", image.id, status="accepted")
    seen["members"] = [[one.id, one.status] for one in cloud.image.members(image.id)]
    cloud.image.deactivate_image(image.id)
    cloud.image.reactivate_image(image.id)
    cloud.image.delete_image(image.id)
    seen["gone"] = cloud.image.find_image(image.id) is None
    seen["errors"] = _errors(openstack.exceptions.HttpException, [lambda: cloud.image.get_image(image.id)])
    return seen


def _errors(kind: type[Exception], calls: list[Any]) -> list[int]:
    """The statuses of calls that fail; a client that crashes fails otherwise."""
    statuses = []
    for call in calls:
        try:
            call()
        except kind as error:
            statuses.append(int(getattr(error, "status_code", 0) or getattr(error, "code", 0)))
        else:
            statuses.append(200)
    return statuses


if __name__ == "__main__":
    program, endpoint, file = sys.argv[1:]
    print(json.dumps({"glance1": glance1, "glance2": glance2, "sdk": sdk}[program](endpoint, Path(file))))
