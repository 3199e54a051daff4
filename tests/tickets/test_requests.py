"""Requests whose ticket is removed, extended or replaced, or expires, in the middle of them; and what tickets allow."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.fixtures import Images, StartMover
from tests.harness.http import ask, connect, head, read_to_end
from tests.harness.mover import Mover
from tests.harness.patterns import pattern
from tests.harness.servers import NbdServer
from tests.harness.transfers import BrokenOff, download, upload
from tests.harness.waiting import wait_until
from tests.tickets.conftest import BYTES, MIB
from tests.tickets.vdsm import Vdsm, nbd_url

pytestmark = pytest.mark.nbd


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mover, Vdsm]]:
    """One Mover for all tests."""
    room = tmp_path_factory.mktemp("requests")
    vdsm = Vdsm(room / "tickets.sock")
    with contextlib.closing(Mover(room, {}, {"serve": {"ticket_socket": str(vdsm.path)}}, 2)) as mover:
        yield mover.start(), vdsm
        mover.assert_log_clean()


@pytest.fixture
def mover(house: tuple[Mover, Vdsm]) -> Mover:
    """In the place of one for each test."""
    return house[0]


@pytest.fixture
def vdsm(house: tuple[Mover, Vdsm]) -> Iterator[Vdsm]:
    """It leaves no ticket behind."""
    yield house[1]
    house[1].remove()


def test_removing_a_ticket_ends_a_put_in_flight(mover: Mover, vdsm: Vdsm, disk: NbdServer) -> None:
    """Its client is told so at once, and not a byte is written after the agent has its answer."""
    ticket = vdsm.install(nbd_url(disk), BYTES, "write")
    with connect(mover.address()) as client:
        client.sendall(head("PUT", f"/images/{ticket}", Content_Length=BYTES) + pattern(9, 0, 8 * MIB))
        wait_until("the upload is in flight", lambda: vdsm.look(ticket)["transferred"] == 8 * MIB)
        assert vdsm.look(ticket)["active"]
        vdsm.remove(ticket)
        assert read_to_end(client).startswith(b"HTTP/1.1 403")


def test_removing_a_ticket_breaks_a_get_off(mover: Mover, vdsm: Vdsm, disk: NbdServer) -> None:
    """What has come is right, and the rest never comes."""
    ticket = vdsm.install(nbd_url(disk), BYTES, "read")
    source = memoryview(pattern(1, 0, BYTES))
    with pytest.raises(BrokenOff):
        download(mover.address(), f"/images/{ticket}", source, {MIB: lambda: vdsm.remove(ticket)})
    mover.settled_census()


# -- expired, extended, replaced in the middle -------------------------------------------------------------------


def test_a_ticket_that_expires_lets_a_put_finish(mover: Mover, vdsm: Vdsm, disk: NbdServer) -> None:
    """A request in flight is use: the ticket does not expire before it. Told to, it admits no other one."""
    ticket = vdsm.install(nbd_url(disk), BYTES, "write", timeout=1)
    vdsm.extend(ticket, 60)
    body = pattern(9, 0, 8 * MIB)
    with connect(mover.address()) as client:
        client.sendall(head("PUT", f"/images/{ticket}", Content_Length=len(body), Connection="close") + body[:MIB])
        wait_until("the upload is in flight", lambda: vdsm.look(ticket)["transferred"] == MIB)
        vdsm.extend(ticket, 1)
        for _ in range(3):  # longer than it lives without use
            left = int(os.times().elapsed) + 1
            wait_until("another second has passed", lambda left=left: os.times().elapsed > left)  # type: ignore[misc]
            assert mover.ask("GET", f"/images/{ticket}", Range="bytes=0-0").status == 206
        vdsm.extend(ticket, 0)
        assert mover.ask("GET", f"/images/{ticket}", Range="bytes=0-0").status == 403
        client.sendall(body[MIB:])
        assert read_to_end(client).startswith(b"HTTP/1.1 200")
    assert vdsm.look(ticket)["expired"]
    assert vdsm.look(ticket)["transferred"] == len(body)


def test_a_ticket_that_expires_lets_a_get_finish(mover: Mover, vdsm: Vdsm, disk: NbdServer) -> None:
    """The same; and after it, it expires by itself. It can be extended then, and is the same transfer."""
    ticket = vdsm.install(nbd_url(disk), BYTES, "read", timeout=1)
    vdsm.extend(ticket, 60)
    source = memoryview(pattern(1, 0, BYTES))

    def refused() -> None:
        vdsm.extend(ticket, 0)
        assert mover.ask("GET", f"/images/{ticket}", Range="bytes=0-0").status == 403

    download(mover.address(), f"/images/{ticket}", source, {MIB: refused})
    assert vdsm.look(ticket)["expired"]
    vdsm.extend(ticket, 60)
    assert mover.ask("GET", f"/images/{ticket}", Range="bytes=0-0").status == 206
    assert vdsm.look(ticket)["transferred"] == BYTES
    vdsm.extend(ticket, 1)
    wait_until("it expires again", lambda: vdsm.look(ticket)["expired"])
    assert mover.ask("GET", f"/images/{ticket}", Range="bytes=0-0").status == 403


def test_an_expired_ticket_s_requests_are_ended_with_it(mover: Mover, vdsm: Vdsm, disk: NbdServer) -> None:
    """What began before it expired, or before it was replaced, ends when its id is removed."""
    ticket = vdsm.install(nbd_url(disk), BYTES, "write")
    with connect(mover.address()) as first, connect(mover.address()) as second:
        for client in (first, second):
            client.sendall(head("PUT", f"/images/{ticket}", Content_Length=BYTES) + pattern(9, 0, MIB))
            wait_until("it is in flight", lambda: vdsm.look(ticket)["transferred"] == MIB)
            vdsm.install(nbd_url(disk), BYTES, "write", ticket_id=ticket)
        vdsm.extend(ticket, 0)
        vdsm.remove(ticket)
        assert read_to_end(first).startswith(b"HTTP/1.1 403")
        assert read_to_end(second).startswith(b"HTTP/1.1 403")


def test_a_ticket_that_is_extended_lives_on(mover: Mover, vdsm: Vdsm, disk: NbdServer) -> None:
    """In the middle of a GET and without one; the state says until when."""
    ticket = vdsm.install(nbd_url(disk), BYTES, "read", timeout=1)
    vdsm.extend(ticket, 60)
    source = memoryview(pattern(1, 0, BYTES))
    download(mover.address(), f"/images/{ticket}", source, {MIB: lambda: vdsm.extend(ticket, 1000)})
    assert vdsm.look(ticket)["expires"] - os.times().elapsed > 900
    assert vdsm.look(ticket)["timeout"] == 1


def test_a_replaced_ticket_s_requests_go_on(mover: Mover, vdsm: Vdsm, disk: NbdServer, images: Images) -> None:
    """A GET and a PUT end on the disk that they began with; whoever comes later gets the other one."""
    other = images.qemu_nbd(images.pattern("other.raw", 2, BYTES))
    ticket = vdsm.install(nbd_url(disk), BYTES, "write")

    def replace(server: NbdServer) -> None:
        vdsm.install(nbd_url(server), BYTES, "write", ticket_id=ticket)

    def first_block() -> bytes:
        return mover.ask("GET", f"/images/{ticket}", Range="bytes=0-4095").body

    download(mover.address(), f"/images/{ticket}", memoryview(pattern(1, 0, BYTES)), {MIB: lambda: replace(other)})
    assert first_block() == pattern(2, 0, 4096)
    source = memoryview(pattern(3, 0, 8 * MIB))
    assert upload(mover.address(), f"/images/{ticket}", source, {MIB: lambda: replace(disk)}).status == 200
    assert first_block() == pattern(1, 0, 4096)
    replace(other)
    assert first_block() == pattern(3, 0, 4096)


def test_not_a_byte_is_written_after_the_answer(mover: Mover, vdsm: Vdsm, images: Images) -> None:
    """A server that takes its time for each write: those that it has begun end before the agent has its answer."""
    path = images.pattern("slow.raw", 1, 16 * MIB)
    slow = images.nbdkit("slow", "file", f"file={path}", "wdelay=300ms", filters=["delay"], threads=None)
    ticket = vdsm.install(nbd_url(slow), BYTES, "write")
    with connect(mover.address()) as client:
        client.sendall(head("PUT", f"/images/{ticket}", Content_Length=16 * MIB) + pattern(9, 0, 8 * MIB))
        wait_until("a write has ended", lambda: path.read_bytes()[:4096] == pattern(9, 0, 4096))
        vdsm.remove(ticket)
        content = path.read_bytes()
        assert read_to_end(client).startswith(b"HTTP/1.1 403")
    mover.settled_census()
    assert path.read_bytes() == content


# -- what a ticket allows ----------------------------------------------------------------------------------------


def test_ops_and_size_are_kept_to(mover: Mover, vdsm: Vdsm, disk: NbdServer) -> None:
    """A smaller size is the image's end, for every request; read-only tickets write nothing."""
    read = vdsm.install(nbd_url(disk), MIB + 5, "read")
    write = vdsm.install(nbd_url(disk), MIB + 5, "write")
    nothing = vdsm.install(nbd_url(disk), MIB, ops=[])
    larger = vdsm.install(nbd_url(disk), BYTES + 1, "read")
    for method, target, body, range_, status in [
        ("PUT", read, b"x", None, 403), ("PATCH", read, b'{"op": "zero", "size": 1}', None, 403),
        ("PATCH", read, b'{"op": "flush"}', None, 403), ("GET", nothing, None, None, 403),
        ("GET", f"{nothing}/extents", None, None, 403), ("GET", f"{nothing}/checksum", None, None, 403),
        ("OPTIONS", nothing, None, None, 403), ("PUT", nothing, b"x", None, 403),
        ("GET", read, None, f"bytes={MIB + 5}-", 416), ("PUT", write, bytes(MIB + 6), None, 416),
        ("PATCH", write, b'{"op": "zero", "offset": %d, "size": 6}' % MIB, None, 416),
        ("PATCH", write, b'{"op": "zero", "offset": %d, "size": 5}' % MIB, None, 200),
        ("GET", write, None, "bytes=0-0", 206),
    ]:  # fmt: skip
        headers = {"Range": range_} if range_ else {}
        assert ask(mover.address(), method, f"/images/{target}", body, headers).status == status, (method, target)
    answer = mover.ask("GET", f"/images/{read}", Range=f"bytes={MIB}-")
    assert (answer.headers["content-range"], len(answer.body)) == (f"bytes {MIB}-{MIB + 4}/{MIB + 5}", 5)
    assert mover.ask("HEAD", f"/images/{read}").headers["content-length"] == str(MIB + 5)
    extents = mover.ask("GET", f"/images/{read}/extents").json()
    assert extents[-1]["start"] + extents[-1]["length"] == MIB + 5
    assert mover.ask("HEAD", f"/images/{larger}").headers["content-length"] == str(BYTES)
    features = mover.ask("OPTIONS", f"/images/{read}").json()
    assert (features["features"], features["max_writers"]) == (["checksum", "extents"], 0)


def test_an_idle_client_is_cut_off(mover: Mover, vdsm: Vdsm, disk: NbdServer) -> None:
    """After the ticket's own `inactivity_timeout`: without a request, in a body that it sends, in one that it gets."""
    ticket = vdsm.install(nbd_url(disk), BYTES, "write", inactivity_timeout=1)
    with contextlib.ExitStack() as stack:
        idle, sending = (stack.enter_context(connect(mover.address())) for _ in range(2))
        reading = stack.enter_context(connect(mover.address(), receive_buffer=4096))
        idle.sendall(head("GET", f"/images/{ticket}", Range="bytes=0-0"))
        sending.sendall(head("PUT", f"/images/{ticket}", Content_Length=MIB) + b"x")
        reading.sendall(head("GET", f"/images/{ticket}"))
        assert read_to_end(idle).startswith(b"HTTP/1.1 206")
        for client in (sending, reading):
            with contextlib.suppress(ConnectionError):
                assert len(read_to_end(client)) < BYTES
    wait_until("nobody uses it", lambda: not vdsm.look(ticket)["connections"])


def test_transferred_counts_each_byte_once(mover: Mover, vdsm: Vdsm, disk: NbdServer) -> None:
    """Over both front ends, whatever was asked for twice, in whatever order; of both operations there is no sum."""
    read, both = vdsm.install(nbd_url(disk), BYTES, "read"), vdsm.install(nbd_url(disk), BYTES, "read", "write")
    for start in (10, 0, 5, 0, 7, 30, 20):
        for _ in range(3):
            range_ = f"bytes={start * MIB}-{(start + 5) * MIB - 1}"
            assert mover.ask("GET", f"/images/{read}", Range=range_).status == 206
    assert vdsm.look(read)["transferred"] == 25 * MIB
    assert mover.ask("PUT", f"/images/{both}", bytes(10)).status == 200
    assert "transferred" not in vdsm.look(both)


def test_a_cancel_that_cannot_end_a_write_says_so_and_can_be_asked_again(
    room: Path, start_mover: StartMover, disk: NbdServer
) -> None:
    """An NBD server stands still with a write: 409 after the time, nothing is admitted; when it goes on, 204."""
    vdsm = Vdsm(room / "tickets.sock")
    mover = start_mover({}, {"serve": {"ticket_socket": str(vdsm.path)}, "control": {"cancel_s": 0.5}})
    ticket = vdsm.install(nbd_url(disk), BYTES, "read", "write")
    assert mover.ask("GET", f"/images/{ticket}", Range="bytes=0-0").status == 206
    disk.pause()
    with connect(mover.address()) as client:
        client.sendall(head("PUT", f"/images/{ticket}", Content_Length=MIB) + pattern(9, 0, MIB))
        wait_until("the server has the write", lambda: mover.ask("GET", "/workers", unix=True).json()[0]["in_flight"])
        answer = vdsm.ask("DELETE", ticket)
        assert (answer.status, "after 0.5 s (control.cancel_s)" in answer.json()["error"]) == (409, True)
        assert vdsm.look(ticket)["canceled"]
        assert mover.ask("GET", f"/images/{ticket}").status in (403, 404)
        disk.resume()
        wait_until("the write has ended", lambda: vdsm.ask("DELETE", ticket).status == 204)
    assert vdsm.ask("GET", ticket).status == 404
    mover.stop_clean()
