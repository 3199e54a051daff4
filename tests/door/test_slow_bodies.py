"""Bodies that come slowly: they hold nothing that others need, arrive right in the end, or are cut off."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.harness.fixtures import Images, StartMover
from tests.harness.http import connect, head, read_to_end
from tests.harness.mover import Mover
from tests.harness.patterns import MIB, assert_same_file, mapped
from tests.harness.transfers import download, upload
from tests.harness.waiting import wait_until
from tests.operation.metrics import turned_away

pytestmark = pytest.mark.nbd

SIZE = 64 * MIB
# More than a lane has slots; fewer than an image has writers.
CROWD = 60
SHARE = SIZE // CROWD // 4096 * 4096


def begin(mover: Mover, source: memoryview, number: int, sent: int) -> socket.socket:
    """A client that writes its share of the image, and has sent only the first bytes of it."""
    sock = connect(mover.tcp)
    at = number * SHARE
    place = f"bytes {at}-*/*"
    sock.sendall(head("PUT", "/images/disk?flush=n", Content_Length=SHARE, Content_Range=place, Connection="close"))
    sock.sendall(source[at : at + sent])
    return sock


def test_a_crowd_of_slow_writers_keeps_nobody_from_anything(images: Images, start_mover: StartMover) -> None:
    """Sixty begin a PUT and stop, after nothing, a byte or more: others go on, and then each of the sixty is right."""
    source, disk = images.pattern("source", 1, SIZE), images.pattern("disk", 2, SIZE)
    other = images.pattern("other", 3, SIZE)
    mover = start_mover({"disk": images.qemu_nbd(disk), "other": images.qemu_nbd(other)})
    luck = random.Random(1)
    with mapped(source) as expected, mapped(disk) as there, mapped(other) as others, ExitStack() as stack:
        sent = [luck.choice((0, 1, 4095, 70_000, SHARE - 1)) for _ in range(CROWD)]
        crowd = [begin(mover, expected, number, count) for number, count in enumerate(sent)]
        for sock in crowd:
            stack.enter_context(contextlib.closing(sock))
        rest = CROWD * SHARE
        tail = f"bytes {rest}-*/*"
        for _ in range(3):
            answer = upload(mover.tcp, "/images/disk", expected[rest:], Content_Range=tail)
            assert answer.status == 200
        download(mover.tcp, "/images/other", others)
        assert bytes(there[rest:]) == bytes(expected[rest:])
        for number, sock in enumerate(crowd):
            at = number * SHARE
            sock.sendall(expected[at + sent[number] : at + SHARE])
        for sock in crowd:
            assert b'"ok":true' in read_to_end(sock)
    assert_same_file(disk, source)
    mover.stop_clean()


@contextmanager
def dripping(socks: list[socket.socket], source: memoryview, places: list[int]) -> Iterator[None]:
    """Meanwhile each of these clients sends a few bytes now and then; `places` says where each has got to."""
    luck, stop = random.Random(2), threading.Event()

    def drip() -> None:
        while not stop.is_set():
            for number, sock in enumerate(socks):
                end = min(places[number] + luck.randrange(1, 3000), (number + 1) * SHARE)
                sock.sendall(source[places[number] : end])
                places[number] = end

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.slow
def test_a_crowd_of_dripping_writers_keeps_nobody_from_anything(images: Images, start_mover: StartMover) -> None:
    """The same with sixty that never stop, each a few bytes at a time."""
    source, disk = images.pattern("source", 1, SIZE), images.pattern("disk", 2, SIZE)
    mover = start_mover({"disk": images.qemu_nbd(disk)})
    with mapped(source) as expected, ExitStack() as stack:
        socks = [begin(mover, expected, number, 0) for number in range(CROWD)]
        for sock in socks:
            stack.enter_context(contextlib.closing(sock))
        places = [number * SHARE for number in range(CROWD)]
        tail = f"bytes {CROWD * SHARE}-*/*"
        with dripping(socks, expected, places):
            for _ in range(10):
                assert upload(mover.tcp, "/images/disk", expected[CROWD * SHARE :], Content_Range=tail).status == 200
                assert mover.ask("GET", "/images/disk", Range=f"bytes={SIZE - 10}-").body == bytes(expected[-10:])
        for number, sock in enumerate(socks):
            sock.sendall(expected[places[number] : (number + 1) * SHARE])
        for sock in socks:
            assert b'"ok":true' in read_to_end(sock)
    assert_same_file(disk, source)
    mover.stop_clean()


def test_a_byte_now_and_then_is_too_little(images: Images, start_mover: StartMover) -> None:
    """A client that is never silent for long, but sends next to nothing, is cut off and leaves nothing."""
    disk = images.pattern("disk", 2, SIZE)
    mover = start_mover({"disk": images.qemu_nbd(disk)}, {"front": {"progress_s": 1.0, "least_bytes_s": 100_000}})
    assert mover.ask("GET", "/images/disk", Range="bytes=0-9").status == 206
    before = mover.settled_census()
    with mapped(disk) as expected, contextlib.closing(begin(mover, expected, 0, 10)) as sock:
        sent = 10

        def cut_off() -> bool:
            nonlocal sent
            try:
                sock.sendall(expected[sent : sent + 1])
                sent += 1
                return bool(select.select([sock], [], [], 0.01)[0]) and sock.recv(1000) == b""
            except ConnectionError:
                return True

        wait_until("the client is cut off", cut_off)
    mover.assert_returns_to(before)
    assert turned_away(mover, "slow") == 1
    mover.stop_clean()
