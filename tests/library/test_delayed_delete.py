"""Images whose bytes go later: deleted for every client at once, and scrubbed when their time has come."""

from __future__ import annotations

from tests.harness.fixtures import StartMover
from tests.harness.mover import Tables
from tests.harness.waiting import wait_until
from tests.library.service import OCTETS, Service
from tests.store.library import Library

DELETED_BY = {
    "v1": ("/v1/images/{}", 200),
    "v2": ("/v2/images/{}", 204),
    "visor": ("/visor/images/{}", 200),
}


def settings(scrub_s: float) -> Tables:
    """So long the bytes stay."""
    return {"library": {"scrub_s": scrub_s}, "worker": {"idle_s": 0.5}}


def test_bytes_stay_for_a_while_and_go(start_mover: StartMover) -> None:
    """By each API, and over a restart: gone for users, `pending_delete` for admins; then scrubbed, and `deleted`."""
    mover = start_mover({}, settings(3600), front_ends=2)
    service, library = Service(mover), Library(mover)
    images = {api: service.active(api.encode())["id"] for api in DELETED_BY}
    kept = service.active(b"kept")["id"]
    for api, (path, status) in DELETED_BY.items():
        assert service.ask("DELETE", path.format(images[api])).status == status
    for again in range(2):
        for api, image in images.items():
            assert_gone(service, image)
            head = service.ask("HEAD", f"/v1/images/{image}").headers
            assert (head["x-image-meta-status"], head["x-image-meta-deleted"]) == ("pending_delete", "True")
            assert (library.directory / image).read_bytes() == api.encode()
        if not again:
            mover.stop()
            mover.start()
    mover.stop()
    mover.configure(settings(0.01))
    mover.start()
    assert service.show(kept)["status"] == "active"  # the first request of the library begins a round
    wait_until("the bytes are gone", lambda: library.listing() == [kept])
    for image in images.values():
        assert_gone(service, image)
        wait_until("it is deleted", lambda: status_by_v1(service, image) == "deleted")  # noqa: B023
    assert service.ask("GET", f"/v2/images/{kept}/file").body == b"kept"


def status_by_v1(service: Service, image: str) -> str:
    """As an admin sees it."""
    return service.ask("HEAD", f"/v1/images/{image}").headers["x-image-meta-status"]


def assert_gone(service: Service, image: str) -> None:
    """Nobody reads, changes, revives or deletes it again, and nobody else gets its id."""
    assert service.ask("GET", f"/v2/images/{image}").status == 404
    assert service.ask("GET", f"/v2/images/{image}/file").status == 404
    assert service.upload(image, b"again").status == 404
    assert service.patch(image, {"op": "replace", "path": "/name", "value": "x"}).status == 404
    assert service.ask("DELETE", f"/v2/images/{image}").status == 404
    assert service.ask("DELETE", f"/v1/images/{image}").status in (403, 404)
    assert service.ask("GET", f"/visor/images/{image}").status == 404
    assert service.json("POST", "/v2/images", {"id": image}).status == 409
    headers = {"Content_Type": OCTETS, "x_image_meta_disk_format": "raw", "x_image_meta_container_format": "bare"}
    assert service.ask("PUT", f"/v1/images/{image}", b"again", **headers).status in (403, 404)
    assert image not in {one["id"] for one in service.listed("?limit=1000")}
