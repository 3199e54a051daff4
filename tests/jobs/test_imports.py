"""Images made and moved by jobs: disks, staged data, copies, exports; the bytes are compared."""

from __future__ import annotations

import hashlib
import random
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness import servers
from tests.harness.servers import NbdServer
from tests.jobs.jobs import Jobs

pytestmark = pytest.mark.nbd

MIB = 1024 * 1024
DATA = random.Random(7).randbytes(3 * MIB) + bytes(4 * MIB) + random.Random(8).randbytes(MIB + 512)


def served(room: Path, name: str, data: bytes, endings: ExitStack, **options: object) -> NbdServer:
    """A disk of these bytes, beneath what jobs may name."""
    (room / name).write_bytes(data)
    server = servers.qemu_nbd(room, name, room / name, **options)  # type: ignore[arg-type]
    endings.callback(server.close)
    return server.start()


def assert_whole(jobs: Jobs, image_id: str, data: bytes, *stores: str) -> None:
    shown = jobs.show(image_id)
    assert (shown["status"], shown["size"], shown["stores"]) == ("active", len(data), ",".join(stores))
    assert shown["checksum"] in (None, hashlib.md5(data).hexdigest())
    for store in stores:
        assert jobs.file(store, image_id).read_bytes() == data
    assert jobs.ask("GET", f"/v2/images/{image_id}/file").body == data
    jobs.wait_for_files(image_id, *(f"{store}/{image_id}" for store in stores))


@pytest.mark.parametrize("digests", [True, False])
def test_a_disk_becomes_an_image_and_an_image_a_disk(jobs: Jobs, endings: ExitStack, digests: bool) -> None:
    """With digests they are the bytes'; without, there are none. Tasks tell what was asked and how far it is."""
    source = served(jobs.room, f"source-{digests}", DATA, endings, read_only=True)
    image = jobs.create()["id"]
    job = jobs.begun(image, "disk", source=source.uri(), digests=digests)
    task = jobs.ended(job)
    assert (task["state"], task["status"], task["message"]) == ("done", "success", ""), task
    assert (task["bytes_done"], task["bytes_total"]) == (len(DATA), len(DATA))
    assert_whole(jobs, image, DATA, "near")
    assert (jobs.show(image)["checksum"] is None) == (not digests)
    target = served(jobs.room, f"target-{digests}", b"x" * (len(DATA) + MIB), endings)
    answer = jobs.export(image, target.uri())
    assert answer.status == 202, answer
    assert jobs.ended(answer.headers["location"].rpartition("/")[2])["state"] == "done"
    assert (jobs.room / f"target-{digests}").read_bytes() == DATA + b"x" * MIB


def test_staged_data_become_an_image_in_several_stores(jobs: Jobs) -> None:
    """While they wait the image is `uploading`; then each store has it, and nothing of the staged data is left."""
    image = jobs.create()["id"]
    assert jobs.begin(image, "glance-direct").status == 409
    assert jobs.stage(image, DATA).status == 204
    assert jobs.show(image)["status"] == "uploading"
    assert jobs.upload(image, b"other").status == 409
    answer = jobs.begin(image, "glance-direct", stores=["far", "near"])
    job = jobs.ended(answer.headers["location"].rpartition("/")[2])
    assert job["request_id"] == answer.headers["x-openstack-request-id"]
    assert (job["state"], job["bytes_done"], job["bytes_total"]) == ("done", 2 * len(DATA), 2 * len(DATA))
    assert_whole(jobs, image, DATA, "near", "far")


def test_staged_data_that_stay_where_they_lie_are_all_there(jobs: Jobs) -> None:
    """A job that moves no byte says so: all of so many, not nothing of an unknown size."""
    image = jobs.create()["id"]
    assert jobs.stage(image, DATA).status == 204
    job = jobs.ended(jobs.begun(image, "glance-direct", stores=["near"]))
    assert (job["state"], job["bytes_done"], job["bytes_total"]) == ("done", len(DATA), len(DATA))


def test_staged_data_go_to_another_store_than_they_lie_in(jobs: Jobs) -> None:
    image = jobs.create()["id"]
    assert jobs.stage(image, DATA).status == 204
    job = jobs.ended(jobs.begun(image, "glance-direct", stores=["far"]))
    assert (job["state"], job["bytes_done"], job["bytes_total"]) == ("done", len(DATA), len(DATA))
    assert_whole(jobs, image, DATA, "far")


def test_copies_in_other_stores(jobs: Jobs) -> None:
    """A second store has the same bytes; a read takes the other copy when one is away; the last one stays."""
    image = jobs.active(DATA)["id"]
    assert jobs.begin(image, "copy-image", stores=["near"]).status == 409
    assert jobs.ended(jobs.begun(image, "copy-image", all_stores=True))["state"] == "done"
    assert_whole(jobs, image, DATA, "near", "far")
    assert jobs.show(image)["os_glance_importing_to_stores"] == ""
    jobs.file("near", image).rename(jobs.room / "aside")
    assert jobs.ask("GET", f"/v2/images/{image}/file").body == DATA
    (jobs.room / "aside").rename(jobs.file("near", image))
    assert jobs.ask("DELETE", f"/v2/stores/near/{image}").status == 204
    assert jobs.ask("DELETE", f"/v2/stores/near/{image}").status == 404
    assert jobs.ask("DELETE", f"/v2/stores/far/{image}").status == 403
    assert_whole(jobs, image, DATA, "far")
    assert jobs.ended(jobs.begun(image, "copy-image", stores=["near"]))["state"] == "done"
    assert_whole(jobs, image, DATA, "far", "near")
