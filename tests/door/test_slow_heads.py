"""Heads that come slowly, or never: they end after a deadline, and meanwhile everybody else is served."""

from __future__ import annotations

import contextlib
import socket
from contextlib import ExitStack

import pytest

from tests.harness.fixtures import Images, StartMover
from tests.harness.http import Client, connect, head, read_to_end
from tests.harness.patterns import MIB, mapped
from tests.harness.transfers import download, upload
from tests.harness.waiting import wait_until
from tests.operation.metrics import turned_away

pytestmark = pytest.mark.nbd

SIZE = 16 * MIB
HEAD = head("GET", "/images/disk", X="x" * 4000)


def test_two_hundred_slow_heads_keep_nobody_from_anything(images: Images, start_mover: StartMover) -> None:
    """Each sends a byte now and then: others transfer at once, the slow ones get 408, and nothing is left of them."""
    source = images.pattern("disk", 1, SIZE)
    mover = start_mover({"disk": images.qemu_nbd(source)}, {"front": {"head_s": 2.0}})
    with mapped(source) as expected:
        download(mover.tcp, "/images/disk", expected)
        before = mover.settled_census()
        with ExitStack() as stack:
            slow = [stack.enter_context(contextlib.closing(connect(mover.tcp))) for _ in range(200)]
            for at in range(10):
                drip(slow, at)
            download(mover.tcp, "/images/disk", expected)
            assert upload(mover.tcp, "/images/disk", expected).status == 200
            sent = 10
            answers: list[bytes] = []
            while len(answers) < len(slow):  # each is cut off, whatever it goes on sending
                drip(slow, sent)
                sent += 1
                assert sent < len(HEAD), "a head went on and on"
                answers = [answer for sock in slow if (answer := peeked(sock))]
            assert {answer[:12] for answer in answers} == {b"HTTP/1.1 408"}
        mover.assert_returns_to(before)
    assert turned_away(mover, "head_s") == 200
    mover.stop_clean()


def drip(socks: list[socket.socket], at: int) -> None:
    """One byte more from each."""
    for sock in socks:
        with contextlib.suppress(ConnectionError):
            sock.send(HEAD[at : at + 1])


def peeked(sock: socket.socket) -> bytes:
    """What can be read without waiting, and stays there."""
    try:
        return sock.recv(1000, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return b""
    except ConnectionResetError:
        return b"HTTP/1.1 408"  # it went on sending for so long that the answer was lost with the connection


def test_a_head_that_comes_in_time_is_answered_and_the_next_one_has_its_own_time(start_mover: StartMover) -> None:
    """The deadline is of one head: a connection may have many, and pauses between them."""
    mover = start_mover({}, {"front": {"head_s": 10.0}})
    half = len(HEAD) // 2
    with contextlib.closing(connect(mover.tcp)) as sock, Client(mover.tcp) as clock:
        for _ in range(3):
            sock.sendall(HEAD[:half])
            for _ in range(10):
                assert clock.ask("GET", "/healthz").status == 200
            sock.sendall(HEAD[half:] + HEAD[:1])  # and the first byte of the next one
            assert sock.recv(12) == b"HTTP/1.1 404"
            sock.sendall(HEAD[1:])
            while not sock.recv(65536).endswith(b'{"error":"unknown image_id"}'):
                pass
    mover.stop_clean()


def test_a_connection_that_says_nothing_is_closed(start_mover: StartMover) -> None:
    """After keep_alive_s, with or without a request before."""
    mover = start_mover({}, {"front": {"keep_alive_s": 2.0}})
    with contextlib.closing(connect(mover.tcp)) as silent, contextlib.closing(connect(mover.tcp)) as idle:
        idle.sendall(head("GET", "/healthz"))
        assert read_to_end(idle).startswith(b"HTTP/1.1 200")
        assert read_to_end(silent) == b""
    assert turned_away(mover, "keep_alive_s") == 2
    mover.stop_clean()


def test_json_that_comes_slowly_is_cut_off(images: Images, start_mover: StartMover) -> None:
    """A PATCH's body has progress_s in all, however it comes."""
    source = images.pattern("disk", 1, MIB)
    mover = start_mover({"disk": images.qemu_nbd(source)}, {"front": {"progress_s": 1.0}})
    with contextlib.closing(connect(mover.tcp)) as sock:
        sock.sendall(head("PATCH", "/images/disk", Content_Length=60_000))
        sent = 0

        def cut_off() -> bool:
            nonlocal sent
            sent += 1
            try:
                sock.sendall(b" ")
                return sock.recv(1000, socket.MSG_DONTWAIT) == b""
            except BlockingIOError:
                return False
            except ConnectionError:
                return True

        wait_until("it is cut off", cut_off)
        assert sent < 60_000
    mover.stop_clean()
