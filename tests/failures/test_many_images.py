"""Many images and clients at once: every byte is read from, and written to, where it belongs."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from config.settings import FrontSettings
from tests.harness.fixtures import Images, StartMover
from tests.harness.http import connect, head
from tests.harness.mover import Mover
from tests.harness.patterns import BLOCK_BYTES, MIB, difference, mapped, pattern
from tests.harness.transfers import Doing
from tests.harness.waiting import wait_until

pytestmark = pytest.mark.nbd

IMAGES = 8
CLIENTS = 8
TURNS = 12
# Each client has a part of its image to itself, so that what it wrote last is what must be there.
PART = MIB
SIZE = CLIENTS * PART
ARENA_BYTES = FrontSettings().slots * FrontSettings().slot_bytes


class Tenant:
    """A client that reads and writes its part of an image, and knows what must be in it."""

    def __init__(self, image: int, part: int) -> None:
        self._image = image
        self._start = part * PART
        self._rng = random.Random(image * 100 + part)
        self.expected = bytearray(pattern(image, self._start, PART))

    def live(self, mover: Mover) -> None:
        """TURNS reads and writes on one connection; raises AssertionError for the first byte that is not right."""
        with mover.client() as client:
            for turn in range(1, TURNS + 1):
                offset = self._rng.randrange(0, PART - BLOCK_BYTES)
                length = self._rng.randrange(1, PART - offset)
                at = self._start + offset
                span = f"bytes={at}-{at + length - 1}"
                if self._rng.random() < 0.5:
                    body = pattern(self._image, at, length, stamp=turn)
                    answer = client.ask("PATCH", f"/images/{self._image}", body, {"Range": span})
                    assert answer.json() == {"ok": True, "bytes_written": length, "flushed": False}, answer
                    self.expected[offset : offset + length] = body
                else:
                    answer = client.ask("GET", f"/images/{self._image}", range=span)
                    assert difference(answer.body, self.expected[offset : offset + length], at) is None


def test_eight_images_with_eight_clients_each(images: Images, start_mover: StartMover) -> None:
    """Sixty-four clients over two front ends: no foreign byte is read, no acknowledged write is missing."""
    files = {image: images.pattern(f"disk{image}", image, SIZE) for image in range(1, IMAGES + 1)}
    mover = start_mover({str(image): images.qemu_nbd(file) for image, file in files.items()}, front_ends=2)
    tenants = {image: [Tenant(image, part) for part in range(CLIENTS)] for image in files}
    lives = [Doing(partial(tenant.live, mover)) for house in tenants.values() for tenant in house]
    for life in lives:
        life.result()
    for image, house in tenants.items():
        assert mover.ask("POST", f"/images/{image}/flush").status == 200
        with mapped(files[image]) as found:
            assert difference(found, b"".join(bytes(tenant.expected) for tenant in house)) is None
    mover.stop_clean()


def test_eight_images_whose_workers_are_killed(images: Images, start_mover: StartMover) -> None:
    """The same, while one worker after the other is killed."""
    files = {image: images.pattern(f"disk{image}", image, SIZE) for image in range(1, IMAGES + 1)}
    servers = {image: images.qemu_nbd(file) for image, file in files.items()}
    mover = start_mover({str(image): server for image, server in servers.items()}, front_ends=2)
    tenants = {image: [Tenant(image, part) for part in range(CLIENTS)] for image in files}
    lives = [Doing(partial(tenant.live, mover)) for house in tenants.values() for tenant in house]
    for server in servers.values():
        mover.kill_worker(server)
    for life in lives:
        life.result()
    for image, house in tenants.items():
        with mapped(files[image]) as found:
            assert difference(found, b"".join(bytes(tenant.expected) for tenant in house)) is None
    mover.stop_clean()


def test_an_idle_lane_makes_room_for_another_image(images: Images, start_mover: StartMover) -> None:
    """There is memory for two lanes: five images are served in turn, and the third that is busy at once is refused."""
    files = {str(image): images.pattern(f"disk{image}", image, SIZE) for image in range(5)}
    settings = {"supervisor": {"arena_limit_bytes": 2 * ARENA_BYTES}, "log": {"level": "info"}}
    mover = start_mover({image: f"file://{file}" for image, file in files.items()}, settings)
    for image in [*files, *files]:
        answer = mover.ask("GET", f"/images/{image}", Range="bytes=1000-99999")
        assert answer.status == 206, answer
        assert difference(answer.body, pattern(int(image), 1000, 99_000), 1000) is None
    with slow(mover, "0") as first, slow(mover, "1"):
        refused = mover.ask("GET", "/images/2", Range="bytes=0-0")
        assert refused.status == 503, refused
        assert refused.headers["retry-after"] == "1"
        assert b"supervisor.arena_limit_bytes" in refused.body
        first.close()
        wait_until("its lane is idle", lambda: mover.ask("GET", "/images/2", Range="bytes=0-0").status == 206)
    mover.stop_clean()


@contextmanager
def slow(mover: Mover, image: str) -> Iterator[socket.socket]:
    """A client that has begun to read an image, and reads no more."""
    with contextlib.closing(connect(mover.address(), receive_buffer=4096)) as sock:
        sock.sendall(head("GET", f"/images/{image}"))
        assert sock.recv(12) == b"HTTP/1.1 200"
        yield sock
