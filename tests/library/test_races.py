"""Uploads, deletes and clients that get into each other's way: who wins, what the others are told, what is left."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.harness.http import Client
from tests.harness.mover import Mover
from tests.harness.transfers import Doing
from tests.harness.waiting import wait_until
from tests.library.service import OCTETS, Service, some_id

DATA = bytes(range(256)) * 2000


@contextmanager
def upload_under_way(service: Service, image_id: str, *, v1: bool = False) -> Iterator[Client]:
    """An upload whose client has sent half of the data and waits."""
    target = f"/v1/images/{image_id}" if v1 else f"/v2/images/{image_id}/file"
    with Client(service.mover.address()) as client:
        client.putrequest("PUT", target)
        client.putheader("Content-Type", OCTETS)
        client.putheader("Content-Length", str(len(DATA)))
        client.endheaders()
        client.send(DATA[: len(DATA) // 2])
        wait_until("the image is being saved", lambda: service.show(image_id)["status"] == "saving")
        yield client


def finish(client: Client) -> int:
    """Send the other half; the status of the answer."""
    client.send(DATA[len(DATA) // 2 :])
    return client.read_answer(client.getresponse()).status


def test_of_two_uploads_one_wins(either: Service) -> None:
    """The other is told 409 while the first goes on, in v1 as in v2, and the bytes are the winner's."""
    for v1 in (False, True):
        image = either.create()
        with upload_under_way(either, image["id"], v1=v1) as client:
            assert either.upload(image["id"], b"other").status == 409
            assert either.ask("PUT", f"/v1/images/{image['id']}", b"other", Content_Type=OCTETS).status == 409
            assert finish(client) == (200 if v1 else 204)
        assert either.ask("GET", f"/v2/images/{image['id']}/file").body == DATA


def test_uploads_that_begin_together(either: Service) -> None:
    """Of many, over two front ends, exactly one is taken, whole."""
    image = either.create()
    bodies = [bytes([number]) * 5000 for number in range(6)]
    done = [Doing(lambda body=body: either.upload(image["id"], body).status) for body in bodies]  # type: ignore[misc]
    statuses = [one.result() for one in done]
    assert sorted(statuses) == [204, *[409] * 5]
    assert either.ask("GET", f"/v2/images/{image['id']}/file").body == bodies[statuses.index(204)]


def test_creates_of_one_id_that_race(either: Service) -> None:
    """One makes it, with its data; the others get 409 and leave no data behind."""
    image_id = some_id()
    headers = {
        "x_image_meta_disk_format": "raw", "x_image_meta_container_format": "bare", "x_image_meta_id": image_id,
        "Content_Type": OCTETS,
    }  # fmt: skip
    bodies = [bytes([number]) * 5000 for number in range(6)]
    done = [Doing(lambda body=body: either.ask("POST", "/v1/images", body, **headers)) for body in bodies]  # type: ignore[misc]
    answers = [one.result() for one in done]
    statuses = [answer.status for answer in answers]
    assert sorted(statuses) == [201, *[409] * 5], [answer.body for answer in answers]
    assert either.ask("GET", f"/v1/images/{image_id}").body == bodies[statuses.index(201)]


@pytest.mark.parametrize(("v1", "status"), [(False, 410), (True, 412)])
def test_an_image_deleted_while_it_is_uploaded(either: Service, v1: bool, status: int) -> None:
    """The uploader is told, and the bytes are gone."""
    image = either.create()
    with upload_under_way(either, image["id"], v1=v1) as client:
        assert either.ask("DELETE", f"/v2/images/{image['id']}").status == 204
        assert finish(client) == status
    assert either.ask("GET", f"/v2/images/{image['id']}/file").status == 404
    assert stored(either, image["id"]) == []


def stored(service: Service, image_id: str) -> list[Path]:
    """The files of an image, anywhere under the state directory."""
    return [path for path in service.mover.state_dir.rglob(f"*{image_id}*") if path.is_file()]


@pytest.mark.parametrize(("v1", "state"), [(False, "queued"), (True, "killed")])
def test_a_client_that_leaves(either: Service, v1: bool, state: str) -> None:
    """v2: the upload may be tried again; v1: the image is killed. Nothing of the data is kept."""
    image = either.create()
    with upload_under_way(either, image["id"], v1=v1):
        pass
    wait_until("the upload has failed", lambda: either.show(image["id"])["status"] == state)
    wait_until("its bytes are gone", lambda: not stored(either, image["id"]))
    if not v1:
        assert either.upload(image["id"], DATA).status == 204


def test_a_resumable_upload_that_breaks_off(either: Service) -> None:
    """What came is kept; HEAD tells where to go on, on any front end."""
    # The last bytes, fewer than a slot holds, are not kept by the store.
    image, data = either.create(), DATA * 8
    path, half = f"/v2/images/{image['id']}/file", len(data) // 2
    with Client(either.mover.address()) as client:
        client.putrequest("PUT", path)
        for name, value in {"Content-Type": OCTETS, "Content-Length": str(len(data)),
                            "Content-Range": f"bytes 0-{len(data) - 1}/{len(data)}"}.items():  # fmt: skip
            client.putheader(name, value)
        client.endheaders()
        client.send(data[:half])
        wait_until("some of it is stored", lambda: any(file.stat().st_size for file in stored(either, image["id"])))
    wait_until("the upload has ended", lambda: either.show(image["id"])["status"] == "queued")
    at = int(wait_until("what came is kept", lambda: either.ask("HEAD", path).headers.get("upload-offset")))
    assert 0 < at <= half
    rest = either.upload(image["id"], data[at:], Content_Range=f"bytes {at}-{len(data) - 1}/{len(data)}")
    assert rest.status == 204
    assert either.ask("GET", path).body == data


def test_deletes_that_race(either: Service) -> None:
    """One deletes, the others find nothing; the bytes are gone."""
    image = either.active(DATA)
    path = f"/v2/images/{image['id']}"
    done = [Doing(lambda: either.ask("DELETE", path).status) for _ in range(6)]
    assert sorted(one.result() for one in done) == [204, *[404] * 5]
    assert stored(either, image["id"]) == []


def test_deletes_of_what_is_being_read(either: Service) -> None:
    """Who reads meanwhile reads all of it, or is told 404."""
    image = either.active(DATA)
    path = f"/v2/images/{image['id']}"
    reads = [Doing(lambda: either.ask("GET", f"{path}/file")) for _ in range(4)]
    assert either.ask("DELETE", path).status == 204
    for one in reads:
        answer = one.result()
        assert (answer.status, len(answer.body)) == (200, len(DATA)) or answer.status == 404, answer.status


def test_a_front_end_that_is_killed_while_it_receives(room: Path) -> None:
    """The image can be uploaded again at once; the dead one's upload never comes to anything."""
    with ExitStack() as stack:
        mover = Mover(room, {}, front_ends=1)
        stack.callback(mover.close)
        service = Service(mover.start())
        image = service.create()
        with upload_under_way(service, image["id"]):
            [pid] = mover.front_end_pids()
            os.kill(pid, signal.SIGKILL)
            wait_until("another front end is there", lambda: mover.front_end_pids() not in ([], [pid]))
        answer = wait_until("it answers", lambda: _asked(service, image["id"]))
        assert answer == 204
        assert service.ask("GET", f"/v2/images/{image['id']}/file").body == DATA


def _asked(service: Service, image_id: str) -> int | None:
    try:
        return service.upload(image_id, DATA).status
    except ConnectionError:
        return None


def test_a_restart_keeps_everything(room: Path) -> None:
    """Images, data and the deleted are what they were; an upload that was cut off may be sent again."""
    with ExitStack() as stack:
        mover = Mover(room, {}, front_ends=1)
        stack.callback(mover.close)
        service = Service(mover.start())
        image, half, gone = service.active(DATA, name="kept", os="linux"), service.create(), service.active(DATA)
        service.ask("DELETE", f"/v2/images/{gone['id']}")
        with upload_under_way(service, half["id"]):
            for process in mover.family():
                process.kill()
            mover.wait_for_end()
        mover.start()
        assert service.show(image["id"]) == image
        assert service.ask("GET", f"/v2/images/{image['id']}/file").body == DATA
        assert service.ask("GET", f"/v2/images/{gone['id']}").status == 404
        assert service.show(half["id"])["status"] == "queued"
        assert service.upload(half["id"], DATA).status == 204
