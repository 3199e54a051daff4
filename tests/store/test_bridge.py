"""Library images through tickets: imageio's clients read and write them, and whatever dies, nothing is half there."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from config.settings import LibrarySettings
from config.store_settings import S3Store
from mover.library.bytes.carrier import StoreCarrier
from mover.library.records import ImageRecord, Location, Visibility
from mover.library.seam import NotPossible
from mover.library.states import State
from tests.clients.conftest import run
from tests.clients.imageio_client import IMAGEIO, imageio
from tests.harness.fixtures import memory_room
from tests.harness.http import Answer, ask
from tests.harness.mover import Mover
from tests.harness.waiting import wait_until
from tests.store.library import Library

MIB = 1024 * 1024
DISK = random.Random(1).randbytes(2 * MIB) + bytes(20 * MIB) + random.Random(2).randbytes(MIB) + bytes(9 * MIB)
DATA = 3 * MIB
NOBODY = "8a1f6c7e-0000-4000-8000-000000000000"


class Bridge(Library):
    """A library, and transfers of its images."""

    def open(self, image: str, **wanted: object) -> Answer:
        body = json.dumps(wanted).encode()
        return ask(self.mover.tcp, "POST", f"/v2/images/{image}/transfers", body, None, Content_Type="application/json")

    def opened(self, image: str, direction: str, **wanted: object) -> dict[str, Any]:
        answer = self.open(image, direction=direction, **wanted)
        assert answer.status == 201, answer
        transfer: dict[str, Any] = answer.json()
        return transfer

    def url(self, transfer: dict[str, Any]) -> str:
        """Where the ticket is, over TCP."""
        return f"http://127.0.0.1:{self.mover.tcp[1]}/images/{transfer['ticket']}"

    def shown(self, transfer: dict[str, Any]) -> Answer:
        return self.mover.ask("GET", f"/v2/images/{transfer['image_id']}/transfers/{transfer['id']}")

    def close(self, transfer: dict[str, Any], query: str = "") -> Answer:
        return self.mover.ask("DELETE", f"/v2/images/{transfer['image_id']}/transfers/{transfer['id']}{query}")

    def use(
        self, method: str, transfer: dict[str, Any], target: str = "", body: bytes | None = None, **h: str
    ) -> Answer:
        return ask(self.mover.address(), method, f"/images/{transfer['ticket']}{target}", body, None, **h)

    def assert_nothing_left(self, image: str, status: str = "queued") -> None:
        """As if there had never been a transfer."""
        assert self.show(image)["status"] == status
        assert self.mover.ask("GET", f"/v2/images/{image}/transfers").json() == {"transfers": []}
        assert [name for name in self.listing() if image in name] == ([image] if status == "active" else [])


@pytest.fixture(scope="module")
def bridge() -> Iterator[Bridge]:
    """Two front ends, with nothing configured but times."""
    with memory_room() as room:
        settings = {"worker": {"idle_s": 1.0}, "supervisor": {"backoff_s": 0.2}}
        with closing(Mover(room, {}, settings, front_ends=2)) as mover:
            yield Bridge(mover.start())


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DISK as a sparse file; beside it `disk.qcow2`, the same disk in another format."""
    path = tmp_path_factory.mktemp("disk") / "disk.raw"
    with path.open("wb") as file:
        file.truncate(len(DISK))
        for at in range(0, len(DISK), MIB):
            if any(DISK[at : at + MIB]):
                file.seek(at)
                file.write(DISK[at : at + MIB])
    run("qemu-img", "convert", "-O", "qcow2", path, path.with_suffix(".qcow2"))
    return path


def extents_of(image: Path, image_format: str) -> list[dict[str, Any]]:
    """What qemu says of a disk, as imageio's contract does, without holes."""
    mapped = json.loads(run("qemu-img", "map", "--output=json", "-f", image_format, image))
    return merged([{"start": one["start"], "length": one["length"], "zero": one["zero"]} for one in mapped])


def merged(extents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for one in extents:
        if found and found[-1]["zero"] == one["zero"]:
            found[-1]["length"] += one["length"]
        else:
            found.append({key: one[key] for key in ("start", "length", "zero")})
    return found


def servers(bridge: Bridge) -> list[psutil.Process]:
    """The qemu-nbds of its workers."""
    return [one for one in psutil.Process(bridge.mover.pid).children(recursive=True) if one.name() == "qemu-nbd"]


# -- clients -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(IMAGEIO is None, reason="ovirt-imageio is missing: `.ci/setup imageio` installs it")
@pytest.mark.parametrize("workers", [1, 4])
def test_imageios_client_writes_and_reads_images_and_moves_only_their_data(
    bridge: Bridge, disk: Path, tmp_path: Path, workers: int
) -> None:
    image = bridge.create()
    transfer = bridge.opened(image, "upload", size=len(DISK))
    assert bridge.show(image)["status"] == "saving"
    imageio("upload", disk, bridge.url(transfer), workers)
    assert bridge.close(transfer).status == 204
    bridge.assert_whole(image, DISK)
    assert (bridge.directory / image).stat().st_blocks * 512 <= 1.05 * DATA
    transfer = bridge.opened(image, "download")
    copy = tmp_path / "copy"
    imageio("download", bridge.url(transfer), copy, "raw", workers)
    assert copy.read_bytes() == DISK
    moved = wait_until("its use is told", lambda: bridge.shown(transfer).json()["transferred"])
    assert moved <= 1.5 * DATA
    assert bridge.close(transfer).status == 204
    bridge.assert_nothing_left(image, "active")
    assert bridge.delete(image).status == 204


@pytest.mark.skipif(IMAGEIO is None, reason="ovirt-imageio is missing: `.ci/setup imageio` installs it")
def test_the_disk_in_a_qcow2_image_has_the_bytes_and_extents_that_qemu_nbd_has_of_it(
    bridge: Bridge, disk: Path, tmp_path: Path
) -> None:
    """The image itself comes as it is, by Mover's own client, and is read as it is, too."""
    source, image = disk.with_suffix(".qcow2"), bridge.create(disk_format="qcow2")
    transfer = bridge.opened(image, "upload", format="as-is", size=source.stat().st_size)
    run(sys.executable, "-m", "mover", "upload", "--format", "raw", source, bridge.url(transfer))
    assert bridge.close(transfer).status == 204
    bridge.assert_whole(image, source.read_bytes())
    assert bridge.show(image)["virtual_size"] == len(DISK)
    view, same = bridge.opened(image, "download"), bridge.opened(image, "download", format="as-is")
    assert merged(json.loads(imageio("extents", bridge.url(view), "zero"))) == extents_of(source, "qcow2")
    imageio("download", bridge.url(view), tmp_path / "copy", "raw", 4)
    assert (tmp_path / "copy").read_bytes() == DISK
    assert bridge.use("GET", same).body == source.read_bytes()
    assert bridge.use("PUT", view, "", b"x").status == 403
    [server] = servers(bridge)
    server.kill()
    run(sys.executable, "-m", "mover", "download", bridge.url(view), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == DISK
    assert bridge.delete(image).status == 204
    assert {bridge.use("GET", one).status for one in (view, same)} == {403}


def test_an_image_is_written_out_of_order_zeroed_and_read_before_it_is_closed(bridge: Bridge) -> None:
    image, size = bridge.create(), 3 * MIB
    transfer = bridge.opened(image, "upload", size=size)
    last, first = os.urandom(MIB), os.urandom(MIB)
    for at, data in ((2 * MIB, last), (0, first), (MIB, os.urandom(MIB))):
        put = bridge.use("PUT", transfer, "?flush=n", data, Content_Range=f"bytes {at}-{at + MIB - 1}/*")
        assert put.status == 200, put
    zero = json.dumps({"op": "zero", "offset": MIB, "size": MIB, "flush": True}).encode()
    assert bridge.use("PATCH", transfer, "", zero, Content_Type="application/json").status == 200
    assert bridge.use("GET", transfer).body == first + bytes(MIB) + last
    assert [one["zero"] for one in bridge.use("GET", transfer, "/extents").json()] == [False, True, False]
    beyond = bridge.use("PUT", transfer, "", b"x", Content_Range=f"bytes {size}-{size}/*")
    assert beyond.status == 416
    assert bridge.close(transfer, "?abort=false").status == 204
    bridge.assert_whole(image, first + bytes(MIB) + last)
    assert bridge.delete(image).status == 204


# -- refusals ----------------------------------------------------------------------------------------------------------

WRONG: list[tuple[object, int, str]] = [
    ([], 400, "Expected `object`"),
    ({}, 400, "direction"),
    ({"direction": "sideways", "size": 1}, 400, "Invalid enum value"),
    ({"direction": "upload"}, 400, "needs the size"),
    ({"direction": "upload", "size": 0}, 400, ">= 1"),
    ({"direction": "upload", "size": "1"}, 400, "Expected `int"),
    ({"direction": "upload", "size": 1 << 50}, 413, "larger than the limit"),
    ({"direction": "upload", "size": 1, "format": "qcow2"}, 400, "Invalid enum value"),
    ({"direction": "upload", "size": 1, "timeout": 0}, 400, ">= 1"),
    ({"direction": "upload", "size": 1, "color": "red"}, 400, "unknown field `color`"),
    ({"direction": "upload", "size": 1, "store": "none"}, 400, "no store 'none'"),
    ({"direction": "download"}, 409, "has no data"),
]


def test_what_cannot_be_is_refused_and_leaves_nothing(bridge: Bridge) -> None:
    image = bridge.create()
    for wanted, status, why in WRONG:
        body = json.dumps(wanted).encode()
        answer = bridge.mover.ask("POST", f"/v2/images/{image}/transfers", body, Content_Type="application/json")
        assert (answer.status, why in answer.body.decode().replace("&#x27;", "'").replace("&gt;", ">")) == (
            status,
            True,
        ), answer
    garbage = bridge.mover.ask("POST", f"/v2/images/{image}/transfers", b"{", Content_Type="application/json")
    assert garbage.status == 400
    assert bridge.open(NOBODY, direction="download").status == 404
    assert bridge.mover.ask("GET", f"/v2/images/{image}/transfers/{NOBODY}").status == 404
    assert bridge.mover.ask("DELETE", f"/v2/images/{image}/transfers/x").status == 404
    qcow2 = bridge.create(disk_format="qcow2")
    refused = bridge.open(qcow2, direction="upload", size=MIB)
    assert (refused.status, b"as-is" in refused.body) == (400, True)
    for one in (image, qcow2):
        bridge.assert_nothing_left(one)
        assert bridge.delete(one).status == 204


async def test_a_store_that_cannot_be_written_at_random_and_has_no_files_says_what_to_do(loop: object) -> None:
    store = S3Store(id="cellar", endpoint="http://127.0.0.1:9", bucket="images")
    door: Any = None  # nobody is asked
    who_has: Any = None
    carrier = StoreCarrier(door, LibrarySettings(), [store], "catalogue", who_has)
    image = ImageRecord(NOBODY, State.QUEUED, Visibility.SHARED, 0, 0, 0)
    with pytest.raises(NotPossible, match="store cellar cannot be written at random: name a file store, or upload"):
        await carrier.prepare(image, MIB, None)
    place = Location("cellar", f"s3://images/{NOBODY}")
    with pytest.raises(NotPossible, match="store cellar has no files, and the disk in a qcow2 image"):
        await carrier.readable(place, "qcow2")
    assert (await carrier.readable(place, None)).transport == "object"


def test_a_close_that_is_refused_leaves_the_image_queued_and_nothing_behind(bridge: Bridge) -> None:
    image = bridge.create(disk_format="qcow2")
    transfer = bridge.opened(image, "upload", format="as-is", size=MIB)
    assert bridge.use("PUT", transfer, "", os.urandom(MIB)).status == 200
    assert bridge.close(transfer, "?abort=perhaps").status == 400
    refused = bridge.close(transfer)
    assert (refused.status, b"declared as qcow2, and is raw" in refused.body) == (415, True)
    bridge.assert_nothing_left(image)
    assert bridge.use("GET", transfer).status == 403
    again = bridge.opened(image, "upload", format="as-is", size=MIB)
    assert bridge.close(again, "?abort=true").status == 204
    bridge.assert_nothing_left(image)
    assert bridge.delete(image).status == 204


def test_of_several_uploads_and_closes_of_one_image_one_is_done(bridge: Bridge) -> None:
    image = bridge.create()
    transfer = bridge.opened(image, "upload", size=MIB)
    assert bridge.open(image, direction="upload", size=MIB).status == 409
    assert bridge.put(image, b"x").status == 409
    assert bridge.use("PUT", transfer, "", DISK[:MIB]).status == 200
    answers: list[int] = []
    closers = [threading.Thread(target=lambda: answers.append(bridge.close(transfer).status)) for _ in range(4)]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join()
    assert sorted(answers)[0] == 204
    assert set(answers[1:]) | {204} <= {204, 404, 409}
    assert answers.count(204) == 1
    bridge.assert_whole(image, DISK[:MIB])
    bridge.assert_nothing_left(image, "active")
    assert bridge.delete(image).status == 204


def test_an_image_that_is_deleted_takes_its_upload_with_it(bridge: Bridge) -> None:
    image = bridge.create()
    transfer = bridge.opened(image, "upload", size=MIB)
    assert bridge.use("PUT", transfer, "", DISK[:MIB]).status == 200
    assert bridge.delete(image).status == 204
    assert bridge.use("PUT", transfer, "", DISK[:MIB]).status == 403
    assert bridge.close(transfer).status == 404
    assert [name for name in bridge.listing() if image in name] == []


def test_deactivating_an_image_ends_what_is_read_of_it_by_ticket(bridge: Bridge) -> None:
    """Who may read it then, an admin, asks again; the tickets of other images stay. A ticket whose transfer nobody
    knows of any more is ended, too.
    """
    image, other = bridge.create(), bridge.create()
    for one in (image, other):
        assert bridge.put(one, DISK[:MIB]).status == 204
    before, elsewhere = bridge.opened(image, "download"), bridge.opened(other, "download")
    assert bridge.use("GET", before).body == DISK[:MIB]
    assert bridge.mover.ask("POST", f"/v2/images/{image}/actions/deactivate").status == 204
    assert bridge.use("GET", before).status == 403
    assert bridge.shown(before).status == 404
    again = bridge.opened(image, "download")
    assert bridge.use("GET", again).body == bridge.use("GET", elsewhere).body == DISK[:MIB]
    with closing(sqlite3.connect(bridge.mover.state_dir / "library.sqlite")) as catalogue, catalogue:
        catalogue.execute("DELETE FROM image_transfers WHERE id = ?", [again["id"]])
    wait_until("its ticket is ended", lambda: bridge.use("GET", again).status == 403, 60)
    assert bridge.use("GET", elsewhere).status == 200
    for one in (image, other):
        assert bridge.delete(one).status == 204


def test_a_transfer_is_for_who_may_have_the_image_and_is_shown_to_its_tenant_only(bridge: Bridge) -> None:
    """As GET and PUT of the image's file: 404 for what is not seen, 403 for what is another's."""
    tokens = {name: token(bridge, name) for name in ("ann", "bob")}
    try:
        body = json.dumps({"disk_format": "raw", "container_format": "bare", "visibility": "public"}).encode()
        made = bridge.mover.ask("POST", "/v2/images", body, Content_Type="application/json", X_Auth_Token=tokens["ann"])
        image = made.json()["id"]

        def asked(who: str, method: str, target: str = "", wanted: object = None) -> Answer:
            data, path = (
                None if wanted is None else json.dumps(wanted).encode(),
                f"/v2/images/{image}/transfers{target}",
            )
            return bridge.mover.ask(method, path, data, Content_Type="application/json", X_Auth_Token=tokens[who])

        up = {"direction": "upload", "size": MIB}
        assert asked("bob", "POST", "", up).status == 403
        opened = asked("ann", "POST", "", up)
        assert opened.status == 201
        one = f"/{opened.json()['id']}"
        assert (asked("bob", "GET", one).status, asked("bob", "DELETE", one).status) == (404, 404)
        assert asked("bob", "GET").json() == {"transfers": []}
        assert len(asked("ann", "GET").json()["transfers"]) == 1
        assert bridge.open(image, **up).status == 401
        assert asked("ann", "DELETE", one).status == 204
        down = asked("bob", "POST", "", {"direction": "download"})
        assert down.status == 201
        assert asked("ann", "GET", f"/{down.json()['id']}").status == 404
        assert asked("ann", "GET", "/x").status == 404
        gone = bridge.mover.ask("DELETE", f"/v2/images/{image}", X_Auth_Token=tokens["ann"])
        assert gone.status == 204
    finally:
        (bridge.mover.state_dir / "tokens.json").unlink()


def token(bridge: Bridge, user: str) -> str:
    """A new token of a tenant of this name."""
    where = f"--state-dir={bridge.mover.state_dir}"
    return run(sys.executable, "-m", "mover", "token", "add", where, f"--user={user}", f"--tenant={user}").strip()


# -- what dies ---------------------------------------------------------------------------------------------------------


def test_an_upload_that_nobody_goes_on_with_expires_and_is_dropped(bridge: Bridge) -> None:
    image = bridge.create()
    transfer = bridge.opened(image, "upload", size=MIB, timeout=1)
    assert bridge.use("PUT", transfer, "", DISK[:MIB]).status == 200
    wait_until("the image may be uploaded again", lambda: bridge.show(image)["status"] == "queued", 60)
    wait_until("it is gone", lambda: bridge.shown(transfer).status == 404)
    bridge.assert_nothing_left(image)
    assert bridge.delete(image).status == 204


@pytest.mark.parametrize("victim", ["worker", "front ends", "supervisor"])
def test_a_transfer_goes_on_when_a_process_is_killed_in_the_middle(bridge: Bridge, victim: str) -> None:
    image, mover = bridge.create(), bridge.mover
    transfer = bridge.opened(image, "upload", size=4 * MIB)
    data = random.Random(victim).randbytes(4 * MIB)
    assert bridge.use("PUT", transfer, "", data[: 2 * MIB]).status == 200
    kill(mover, victim)
    wait_until("the service answers", mover.answers, 60)
    rest = wait_until("the ticket is in force", lambda: rest_of(bridge, transfer, data), 60)
    assert rest.status == 200, rest
    assert bridge.close(transfer).status == 204
    bridge.assert_whole(image, data)
    bridge.assert_nothing_left(image, "active")
    assert bridge.delete(image).status == 204


def rest_of(bridge: Bridge, transfer: dict[str, Any], data: bytes) -> Answer | None:
    try:
        answer = bridge.use("PUT", transfer, "", data[2 * MIB :], Content_Range=f"bytes {2 * MIB}-{4 * MIB - 1}/*")
    except (ConnectionError, OSError):
        return None
    return answer if answer.status != 403 else None


def kill(mover: Mover, victim: str) -> None:
    """End processes at once; a supervisor has a successor when this returns."""
    if victim == "supervisor":
        os.kill(mover.pid, signal.SIGKILL)
        mover.wait_for_end()
        mover.start()
        return
    pids = mover.front_end_pids() if victim == "front ends" else [row["pid"] for row in mover.workers()]
    for pid in filter(None, pids):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def test_a_close_whose_front_end_is_killed_is_done_by_another(bridge: Bridge) -> None:
    image, size = bridge.create(), 256 * MIB
    transfer = bridge.opened(image, "upload", size=size)
    assert bridge.use("PUT", transfer, "", DISK[:MIB]).status == 200

    def close() -> None:
        try:
            bridge.close(transfer)
        except (ConnectionError, OSError):
            pass

    closer = threading.Thread(target=close)
    closer.start()
    wait_until("it is being closed", lambda: bridge.shown(transfer).json().get("state") != "open")
    kill(bridge.mover, "front ends")
    closer.join()
    wait_until("the service answers", bridge.mover.answers, 60)
    wait_until("the image is active", lambda: bridge.show(image)["status"] == "active", 60)
    digest = hashlib.md5(DISK[:MIB])
    for _ in range(255):
        digest.update(bytes(MIB))
    assert bridge.show(image)["checksum"] == digest.hexdigest()
    wait_until("it is over", lambda: bridge.shown(transfer).status == 404)
    bridge.assert_nothing_left(image, "active")
    assert bridge.delete(image).status == 204


def test_nothing_is_left(bridge: Bridge) -> None:
    assert bridge.listing() == []
    wait_until("no qemu-nbd is left", lambda: not servers(bridge))
    bridge.mover.stop_clean()
