"""An NBD server that dies: what comes back in time is gone on with, what was lost is said, what is cut is broken."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial

import pytest

from tests.harness.fixtures import Images, StartMover
from tests.harness.http import Answer, Client
from tests.harness.mover import Mover
from tests.harness.patterns import MIB, assert_same_file, difference, mapped
from tests.harness.servers import NbdServer
from tests.harness.transfers import BrokenOff, Doing, download, upload
from tests.harness.waiting import wait_until

pytestmark = pytest.mark.nbd

SIZE = 64 * MIB
# A server that is gone is given up soon, so that a test need not wait for it.
IMPATIENT = {
    "worker": {"reconnect_s": 0.5, "connect_s": 0.5, "settle_s": 0.2},
    "front": {"replay_s": 3.0, "open_s": 3.0},
}

Spans = list[tuple[int, int]]


def restart(server: NbdServer) -> None:
    """Kill the server and start it again on the same address."""
    server.kill()
    server.start()


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_a_get_goes_on_after_the_server_was_restarted(tcp: bool, images: Images, start_mover: StartMover) -> None:
    """The server dies three times while a GET runs and comes back each time: a 200 with every byte right."""
    source = images.pattern("disk", 1, SIZE)
    server = images.qemu_nbd(source, tcp=tcp)
    mover = start_mover({"disk": server})
    with mapped(source) as expected:
        download(mover.tcp, "/images/disk", expected)
        before = mover.settled_census()
        again = partial(restart, server)
        download(mover.tcp, "/images/disk", expected, {SIZE // 5: again, SIZE // 2: again, SIZE // 3 * 2: again})
    mover.assert_returns_to(before)
    mover.stop_clean()


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_a_put_without_flush_goes_on_after_the_server_was_restarted(
    tcp: bool, images: Images, start_mover: StartMover
) -> None:
    """With flush=n it is a 200 that says `"flushed": false`; the flush that follows tells what may be lost, once."""
    source, disk = images.pattern("source", 1, SIZE), images.pattern("disk", 2, SIZE)
    server = images.qemu_nbd(disk, tcp=tcp)
    mover = start_mover({"disk": server})
    assert mover.ask("POST", "/images/disk/flush").status == 200
    before = mover.settled_census()
    with mapped(source) as sent:
        again = partial(restart, server)
        answer = upload(mover.tcp, "/images/disk?flush=n", sent, {SIZE // 3: again, SIZE // 3 * 2: again})
    assert (answer.status, answer.json()) == (200, {"ok": True, "bytes_written": SIZE, "flushed": False})
    assert_same_file(disk, source)
    lost = lost_ranges(mover.ask("POST", "/images/disk/flush"))
    assert lost[0][0] == 0
    assert lost[-1][0] + lost[-1][1] <= SIZE // 3 * 2
    assert mover.ask("POST", "/images/disk/flush").json() == {"ok": True, "bytes_written": 0, "flushed": True}
    mover.assert_returns_to(before)
    mover.stop_clean()


def lost_ranges(answer: Answer) -> Spans:
    """The ranges that a 500 says are lost: in order, apart, none empty."""
    assert answer.status == 500, answer
    said = answer.json()
    assert set(said) == {"error", "lost"}
    spans = [(offset, length) for offset, length in said["lost"]]
    assert spans, said
    assert all(length > 0 for _, length in spans)
    ends = [offset + length for offset, length in spans]
    assert all(end < offset for end, (offset, _) in zip(ends, spans[1:], strict=False)), spans
    return spans


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_sending_the_lost_ranges_again_makes_the_image_whole(
    tcp: bool, images: Images, start_mover: StartMover
) -> None:
    """A server in memory dies with half a PUT: the 500 names what to send again, and that is all there is."""
    source = images.pattern("source", 1, SIZE)
    server = images.nbdkit("memory", "memory", f"{SIZE}", tcp=tcp)
    mover = start_mover({"disk": server})
    assert mover.ask("POST", "/images/disk/flush").status == 200
    before = mover.settled_census()
    with mapped(source) as sent:
        answer = upload(mover.tcp, "/images/disk?flush=y", sent, {SIZE // 2: partial(restart, server)})
        for offset, length in lost_ranges(answer):
            place = f"bytes {offset}-{offset + length - 1}/*"
            again = upload(mover.tcp, "/images/disk?flush=y", sent[offset : offset + length], content_range=place)
            assert (again.status, again.json()["flushed"]) == (200, True)
        download(mover.tcp, "/images/disk", sent)
    mover.assert_returns_to(before)
    mover.stop_clean()


def test_a_server_lost_while_nobody_asked_is_told_too(images: Images, start_mover: StartMover) -> None:
    """The server dies between a PUT without flush and the flush: the flush says what is lost, to the byte, once."""
    server = images.nbdkit("memory", "memory", f"{SIZE}")
    mover = start_mover({"disk": server})
    assert mover.ask("PUT", "/images/disk?flush=y", b"kept" * 1024, Content_Range="bytes 0-4095/*").status == 200
    assert put_at(mover, 1 * MIB, b"lost" * 1024).status == 200
    assert put_at(mover, 2 * MIB, b"lost" * 2048).status == 200
    restart(server)
    assert lost_ranges(mover.ask("POST", "/images/disk/flush")) == [(1 * MIB, 4096), (2 * MIB, 8192)]
    assert mover.ask("POST", "/images/disk/flush").status == 200


def put_at(mover: Mover, offset: int, data: bytes) -> Answer:
    """PUT without flush."""
    place = f"bytes {offset}-{offset + len(data) - 1}/*"
    return mover.ask("PUT", "/images/disk?flush=n", data, Content_Range=place)


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_what_was_flushed_is_not_lost_with_the_server(tcp: bool, images: Images, start_mover: StartMover) -> None:
    """A server that dies after a flush takes nothing with it: the next flush is a 200."""
    server = images.qemu_nbd(images.pattern("disk", 1, MIB), tcp=tcp)
    mover = start_mover({"disk": server})
    assert mover.ask("PUT", "/images/disk?flush=y", b"kept" * 1024).status == 200
    restart(server)
    assert mover.ask("POST", "/images/disk/flush").status == 200


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_the_ledger_outlives_worker_and_server(tcp: bool, images: Images, start_mover: StartMover) -> None:
    """Worker and server die together: what was confirmed and never flushed is told all the same."""
    server = images.nbdkit("memory", "memory", f"{SIZE}", tcp=tcp)
    mover = start_mover({"disk": server})
    assert put_at(mover, 1 * MIB, b"lost" * 1024).status == 200
    before = mover.settled_census()
    worker = wait_until("there is a worker", mover.worker_pid)
    os.kill(worker, signal.SIGSTOP)  # so that it dies without having seen the server's end
    server.kill()
    os.kill(worker, signal.SIGKILL)
    server.start()
    assert lost_ranges(mover.ask("POST", "/images/disk/flush")) == [(1 * MIB, 4096)]
    assert mover.ask("POST", "/images/disk/flush").status == 200
    mover.assert_returns_to(before)
    mover.stop_clean()


def test_a_server_that_is_gone_is_a_502_or_503(images: Images, start_mover: StartMover) -> None:
    """Before the headers, whatever the request: a status with the reason, never a guess; and it recovers."""
    server = images.qemu_nbd(images.pattern("disk", 1, MIB))
    mover = start_mover({"disk": server}, IMPATIENT)
    wait_until("it is connected", lambda: mover.ask("OPTIONS", "/images/disk").status == 200)
    before = mover.settled_census()
    server.kill()
    asked: list[tuple[str, str, bytes | None]] = [
        ("GET", "/images/disk", None),
        ("HEAD", "/images/disk", None),
        ("OPTIONS", "/images/disk", None),
        ("GET", "/images/disk/extents", None),
        ("PUT", "/images/disk", bytes(MIB)),
        ("PATCH", "/images/disk", b'{"op": "flush"}'),
        ("POST", "/images/disk/flush", None),
    ]
    wait_until("the loss is noticed", lambda: mover.ask("OPTIONS", "/images/disk").status != 200)
    for method, target, body in asked:
        answer = mover.ask(method, target, body)
        assert answer.status in (502, 503), (method, target, answer)
        assert method == "HEAD" or answer.json()["error"], answer
    server.start()
    wait_until("it is there again", lambda: mover.ask("GET", "/images/disk").status == 200)
    mover.assert_returns_to(before)
    mover.stop_clean()


def test_a_server_gone_in_the_middle_of_a_get_breaks_the_connection(images: Images, start_mover: StartMover) -> None:
    """After the headers nothing but the broken connection tells the client: a short body never looks whole."""
    source = images.pattern("disk", 1, SIZE)
    server = images.qemu_nbd(source)
    mover = start_mover({"disk": server}, IMPATIENT)
    wait_until("it is connected", lambda: mover.ask("OPTIONS", "/images/disk").status == 200)
    before = mover.settled_census()
    with mapped(source) as expected, pytest.raises(BrokenOff) as broken:
        download(mover.tcp, "/images/disk", expected, {SIZE // 2: server.kill})
    assert SIZE // 2 <= broken.value.received < SIZE
    server.start()
    wait_until("it is there again", lambda: mover.ask("OPTIONS", "/images/disk").status == 200)
    mover.assert_returns_to(before)
    mover.stop_clean()


def test_a_server_gone_in_the_middle_of_a_put_is_an_error(images: Images, start_mover: StartMover) -> None:
    """The PUT is a 502, or its connection is broken off; never a success."""
    source, disk = images.pattern("source", 1, SIZE), images.pattern("disk", 2, SIZE)
    server = images.qemu_nbd(disk)
    mover = start_mover({"disk": server}, IMPATIENT)
    wait_until("it is connected", lambda: mover.ask("OPTIONS", "/images/disk").status == 200)
    before = mover.settled_census()
    with mapped(source) as sent:
        try:
            answer = upload(mover.tcp, "/images/disk", sent, {SIZE // 2: server.kill})
            assert answer.status in (502, 503), answer
        except ConnectionError:
            pass
    server.start()
    wait_until("it is there again", lambda: mover.ask("OPTIONS", "/images/disk").status == 200)
    mover.assert_returns_to(before)
    mover.stop_clean()


FROZEN: dict[str, Callable[[Mover], Answer]] = {
    "read": lambda mover: mover.ask("GET", "/images/disk"),
    "write": lambda mover: mover.ask("PUT", "/images/disk", bytes(range(256)) * 4096),
    "flush": lambda mover: mover.ask("POST", "/images/disk/flush"),
}


@pytest.mark.parametrize("what", FROZEN)
def test_a_server_that_stands_still_is_taken_for_gone(what: str, images: Images, start_mover: StartMover) -> None:
    """A command without an answer within its deadline costs the connection, and at last the request: 502 or 503."""
    server = images.qemu_nbd(images.pattern("disk", 1, MIB))
    deadlines = {"command_s": 0.2, "fence_s": 0.2}
    mover = start_mover({"disk": server}, {**IMPATIENT, "worker": {**IMPATIENT["worker"], **deadlines}})
    wait_until("it is connected", lambda: mover.ask("OPTIONS", "/images/disk").status == 200)
    before = mover.settled_census()
    server.pause()
    answer = Doing(partial(FROZEN[what], mover)).result()
    assert answer.status in (502, 503), answer
    server.resume()
    wait_until("it is there again", lambda: mover.ask("GET", "/images/disk").status == 200)
    mover.assert_returns_to(before)
    mover.stop_clean()


def test_a_get_goes_on_when_a_server_that_stood_still_was_replaced(images: Images, start_mover: StartMover) -> None:
    """A server that hangs is as good as dead: when another one takes its address the GET goes on there."""
    source = images.pattern("disk", 1, SIZE)
    server = images.qemu_nbd(source)
    mover = start_mover({"disk": server}, {"worker": {"command_s": 0.5, "fence_s": 0.2}})
    with mapped(source) as expected, Client(mover.tcp) as client:
        assert client.ask("GET", "/images/disk", range="bytes=0-9").status == 206
        server.pause()
        request = Doing(lambda: client.ask("GET", "/images/disk"))
        # Its commands are in flight for half a second only; its slots are its own until it is done.
        wait_until("it waits", lambda: any(lane["slots_used"] for lane in mover.workers()[0]["lanes"]))
        restart(server)
        assert difference(request.result().body, expected) is None
    mover.stop_clean()
