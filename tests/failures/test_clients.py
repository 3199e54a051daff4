"""Clients that leave, lag, lie and come in crowds: they cost nobody else anything, and nothing is left of them."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import Iterator
from functools import partial

import pytest

from tests.harness.fixtures import Images, StartMover
from tests.harness.http import connect, head, read_to_end
from tests.harness.mover import Mover
from tests.harness.patterns import MIB, assert_same_file, block, difference, mapped, pattern
from tests.harness.transfers import Doing, download, pieces, upload
from tests.harness.waiting import wait_until

pytestmark = pytest.mark.nbd

SIZE = 64 * MIB
# What a slow client sends at a time.
PIECE_BYTES = 1000


def stop_reading(mover: Mover, receive_buffer: int = 64 * 1024) -> socket.socket:
    """A client that asks for the whole disk, reads the first bytes, and then no more."""
    sock = connect(mover.tcp, receive_buffer=receive_buffer)
    sock.sendall(head("GET", "/images/disk"))
    assert sock.recv(1000).startswith(b"HTTP/1.1 200")
    return sock


def stop_sending(mover: Mover, sent: memoryview) -> socket.socket:
    """A client that promises the whole disk and sends only half of it."""
    sock = connect(mover.tcp)
    sock.sendall(head("PUT", "/images/disk", Content_Length=len(sent)))
    sock.sendall(sent[: len(sent) // 2])
    return sock


@pytest.mark.parametrize("leaving", [socket.socket.close, lambda sock: reset(sock)], ids=["closes", "resets"])
def test_clients_that_leave_in_the_middle_leave_nothing(
    leaving: object, images: Images, start_mover: StartMover
) -> None:
    """Forty clients leave in the middle of a GET or a PUT: all they held is given back, and others are served."""
    assert callable(leaving)
    source = images.pattern("disk", 1, SIZE)
    mover = start_mover({"disk": images.qemu_nbd(source)})
    assert mover.ask("GET", "/images/disk", Range="bytes=0-9").status == 206
    before = mover.settled_census()
    with mapped(source) as expected:
        own = memoryview(bytes(expected))  # what they write is what is there already
        for _ in range(20):
            leaving(stop_reading(mover))
            leaving(stop_sending(mover, own))
        download(mover.tcp, "/images/disk", expected)
    mover.assert_returns_to(before)
    mover.stop_clean()


def reset(sock: socket.socket) -> None:
    """Close with RST, as a client that was killed with bytes unread does."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


def test_sixteen_go_on_while_one_stops_reading(images: Images, start_mover: StartMover) -> None:
    """A reader that stopped does not hold the lane: sixteen others get the whole image meanwhile."""
    source = images.pattern("disk", 1, 16 * MIB)
    mover = start_mover({"disk": images.qemu_nbd(source)})
    with mapped(source) as expected, contextlib.closing(stop_reading(mover)):
        others = [Doing(partial(download, mover.tcp, "/images/disk", expected)) for _ in range(16)]
        for other in others:
            other.result()
    mover.settled_census()  # what was being read for the client that has left comes back by itself
    mover.stop_clean()


def test_others_go_on_while_forty_stop_reading_and_eight_stop_sending(images: Images, start_mover: StartMover) -> None:
    """More stalled clients than the lane has slots: readers and writers are still served, and then those forty too."""
    source = images.pattern("disk", 1, 16 * MIB)
    mover = start_mover({"disk": images.qemu_nbd(source)})
    assert mover.ask("GET", "/images/disk", Range="bytes=0-9").status == 206
    before = mover.settled_census()
    with mapped(source) as expected, contextlib.ExitStack() as stalled:
        readers = [stalled.enter_context(contextlib.closing(stop_reading(mover))) for _ in range(40)]
        for _ in range(8):
            stalled.enter_context(contextlib.closing(stop_sending(mover, expected)))
        download(mover.tcp, "/images/disk", expected)
        assert upload(mover.tcp, "/images/disk", expected).status == 200
        assert mover.ask("GET", "/images/disk", Range="bytes=4096-8191").body == block(1, 4096)
        for reader in readers[:5]:
            rest = read_exactly(reader, 8 * MIB)
            assert rest in bytes(expected)
    mover.assert_returns_to(before)
    mover.stop_clean()


def read_exactly(sock: socket.socket, count: int) -> bytes:
    """So many bytes, or fewer at the end."""
    received = bytearray()
    while len(received) < count and (piece := sock.recv(count - len(received))):
        received += piece
    return bytes(received)


def test_a_client_that_does_not_move_is_cut_off_and_a_slow_one_is_not(images: Images, start_mover: StartMover) -> None:
    """Without a byte for progress_s the connection is closed; with one now and then the transfer goes on for longer."""
    source = images.pattern("disk", 1, SIZE)
    mover = start_mover({"disk": images.qemu_nbd(source)}, {"front": {"progress_s": 3.0}})
    assert mover.ask("GET", "/images/disk", Range="bytes=0-9").status == 206
    before = mover.settled_census()
    with mapped(source) as expected, contextlib.ExitStack() as stack:
        reader = stack.enter_context(contextlib.closing(stop_reading(mover)))
        writer = stack.enter_context(contextlib.closing(stop_sending(mover, expected)))
        part = expected[: 200 * PIECE_BYTES]

        def slowly() -> Iterator[memoryview]:
            """A piece now and then, until the one that sends nothing was cut off."""
            cut = False
            for at in range(0, len(part), PIECE_BYTES):
                cut = cut or bool(select.select([writer], [], [], 0.1)[0])
                yield part[at : at + PIECE_BYTES]
            assert cut

        with mover.client() as slow:
            answer = slow.ask("PUT", "/images/disk", slowly(), {"Content-Length": str(len(part))})
        assert answer.status == 200
        with contextlib.suppress(ConnectionError):
            assert len(read_to_end(reader)) < SIZE
        with contextlib.suppress(ConnectionError):
            assert b"200" not in read_to_end(writer)
    mover.assert_returns_to(before)
    mover.stop_clean()


def test_a_body_that_ends_early_is_no_success(images: Images, start_mover: StartMover) -> None:
    """The client half-closes after half of the body: no 200 comes, and the connection ends."""
    disk = images.pattern("disk", 1, SIZE)
    mover = start_mover({"disk": images.qemu_nbd(disk)})
    assert mover.ask("GET", "/images/disk", Range="bytes=0-9").status == 206
    before = mover.settled_census()
    with mapped(disk) as sent, contextlib.closing(stop_sending(mover, sent)) as sock:
        sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            assert not read_to_end(sock).startswith(b"HTTP/1.1 200")
    mover.assert_returns_to(before)
    mover.stop_clean()


def test_what_follows_a_body_is_the_next_request_and_not_written(images: Images, start_mover: StartMover) -> None:
    """A body longer than promised: the promised part is written, the rest is parsed as a request, which it is not."""
    disk = images.pattern("disk", 1, MIB)
    mover = start_mover({"disk": images.qemu_nbd(disk)})
    promised = pattern(2, 0, MIB // 2)
    with contextlib.closing(connect(mover.tcp)) as sock:
        sock.sendall(head("PUT", "/images/disk", Content_Length=len(promised)) + promised + b"x" * 8192 + b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            answers = read_to_end(sock)
            assert answers.startswith(b"HTTP/1.1 200")
            assert answers.count(b"HTTP/1.1 200") == 1
    wait_until("it is flushed", lambda: mover.ask("POST", "/images/disk/flush").status == 200)
    assert difference(disk.read_bytes(), promised + pattern(1, MIB // 2, MIB // 2)) is None
    mover.stop_clean()


def test_requests_that_come_together_are_answered_in_order(images: Images, start_mover: StartMover) -> None:
    """A write, two reads and an error, all sent at once: four answers, each to its request."""
    mover = start_mover({"disk": images.qemu_nbd(images.pattern("disk", 1, MIB))})
    body = pattern(2, 0, 4096)
    requests = head("PUT", "/images/disk", Content_Length=len(body)) + body
    requests += head("GET", "/images/disk", Range="bytes=0-4095") + head("GET", "/images/none")
    requests += head("GET", "/images/disk", Range="bytes=4096-8191", Connection="close")
    with contextlib.closing(connect(mover.tcp)) as sock:
        sock.sendall(requests)
        answers = read_to_end(sock)
    assert [part[:3] for part in answers.split(b"HTTP/1.1 ")[1:]] == [b"200", b"206", b"404", b"206"]
    assert body in answers
    assert answers.endswith(block(1, 4096))
    mover.stop_clean()


def test_two_hundred_connections_at_once(images: Images, start_mover: StartMover) -> None:
    """Two hundred clients read ranges of their own at the same time, five each, and every byte is right."""
    mover = start_mover({"disk": images.qemu_nbd(images.pattern("disk", 1, SIZE))}, front_ends=2)

    async def client(number: int, together: asyncio.Barrier) -> None:
        reader, writer = await asyncio.open_connection(*mover.tcp)
        await together.wait()
        for turn in range(5):
            offset, length = (number * 5 + turn) * 65536, 4096 * (1 + turn * 7)
            writer.write(head("GET", "/images/disk", Range=f"bytes={offset}-{offset + length - 1}"))
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 206"), answer
            assert difference(await reader.readexactly(length), pattern(1, offset, length), offset) is None
        writer.close()
        await writer.wait_closed()

    async def crowd() -> None:
        together = asyncio.Barrier(200)
        await asyncio.gather(*(client(number, together) for number in range(200)))

    asyncio.run(crowd())
    mover.stop_clean()


def test_bodies_outlast_every_timeout_of_sanic(images: Images, start_mover: StartMover) -> None:
    """With Sanic's timeouts at a fraction of a second, a GET and a PUT that take longer are whole all the same."""
    source, disk = images.pattern("source", 1, 4 * MIB), images.pattern("disk", 2, 4 * MIB)
    short = {"front": {"head_s": 0.5, "keep_alive_s": 0.5}}
    mover = start_mover({"source": images.qemu_nbd(source), "disk": images.qemu_nbd(disk)}, short)
    with mapped(source) as expected, contextlib.closing(connect(mover.tcp, receive_buffer=64 * 1024)) as reader:
        reader.sendall(head("GET", "/images/source", Connection="close"))
        wait = partial(outlast_timeouts, mover)
        answer = upload(mover.tcp, "/images/disk", expected, {MIB: wait, 3 * MIB: wait})
        assert answer.status == 200
        body = read_to_end(reader).partition(b"\r\n\r\n")[2]
        assert difference(body, expected) is None
    assert_same_file(disk, source)
    mover.stop_clean()


def outlast_timeouts(mover: Mover) -> None:
    """Wait until Sanic's timeout has ended an idle connection, and then another one."""
    for _ in range(2):
        with contextlib.closing(connect(mover.tcp)) as idle:
            read_to_end(idle)


def test_a_slow_body_is_whole(images: Images, start_mover: StartMover) -> None:
    """A PUT that comes in small pieces, each by itself on the wire, is written right."""
    source, disk = images.pattern("source", 1, 2 * MIB), images.pattern("disk", 2, 2 * MIB)
    mover = start_mover({"disk": images.qemu_nbd(disk)})
    with mapped(source) as sent, contextlib.closing(connect(mover.tcp)) as sock:
        sock.sendall(head("PUT", "/images/disk", Content_Length=len(sent), Connection="close"))
        for piece in pieces(sent):
            for at in range(0, len(piece), 7001):
                sock.sendall(piece[at : at + 7001])
        assert read_to_end(sock).startswith(b"HTTP/1.1 200")
    assert_same_file(disk, source)
    mover.stop_clean()
