"""Admission as clients meet it, over two front ends: what OPTIONS advertises is what is enforced."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.contract.house import MIB
from tests.contract.wire import Wire, request
from tests.harness.http import connect
from tests.harness.mover import Mover
from tests.harness.patterns import sparse_file
from tests.harness.servers import qemu_nbd

pytestmark = pytest.mark.nbd

SIZE = 4 * MIB
StartLimited = Callable[..., Mover]


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[StartLimited]:
    """Starts Mover by two front ends, before the images `a` and `b`, with these limits."""
    with ExitStack() as stack:

        def start(**limits: bool | int | float | str) -> Mover:
            servers = {}
            for name in ("a", "b"):
                sparse_file(tmp_path / f"{name}.raw", SIZE)
                servers[name] = qemu_nbd(tmp_path, name, tmp_path / f"{name}.raw")
                stack.callback(servers[name].close)
                servers[name].start()
            mover = Mover(tmp_path, servers, {"limits": limits}, front_ends=2)
            stack.callback(mover.close)
            return mover.start()

        yield start


class Upload:
    """A PUT that has been admitted, whose last byte has not come yet."""

    def __init__(self, mover: Mover, image: str) -> None:
        self.wire = Wire(mover.tcp)
        self.wire.send(request("PUT", f"/images/{image}?flush=n", Content_Length=10, Expect="100-continue"))
        assert self.wire.interim() == 100

    def finish(self) -> int:
        """Send the body; the answer's status."""
        with self.wire as wire:
            wire.send(b"0123456789")
            return wire.answer("PUT").status


def test_what_is_advertised_is_enforced(limited: StartLimited) -> None:
    """So many writers are admitted, whichever front end each of them meets; one more is told when to come again."""
    mover = limited(max_writers=3, max_readers=2, mode="reject")
    advertised = mover.ask("OPTIONS", "/images/a").json()
    assert (advertised["max_readers"], advertised["max_writers"]) == (2, 3)
    uploads = [Upload(mover, "a") for _ in range(3)]
    for _ in range(6):  # both front ends get some of them
        answer = mover.ask("PUT", "/images/a", b"x")
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert "limit 3 of an image" in answer.json()["error"]
    assert mover.ask("GET", "/images/a", range="bytes=0-0").status == 206
    assert mover.ask("PUT", "/images/b", b"x").status == 200
    assert mover.ask("GET", "/images/a/extents").status == 200
    assert [upload.finish() for upload in uploads] == [200] * 3
    assert mover.ask("PUT", "/images/a", b"x").status == 200


def test_one_more_waits_for_its_turn(limited: StartLimited) -> None:
    """It is asked for its body only when it is admitted; then it goes on as if nothing had been."""
    mover = limited(max_writers=1)
    first = Upload(mover, "a")
    with connect(mover.tcp) as sock:
        sock.sendall(request("PUT", "/images/a?flush=n", b"y" * 10))
        assert first.finish() == 200
        assert sock.recv(12) == b"HTTP/1.1 200"


def test_a_wait_ends_with_503(limited: StartLimited) -> None:
    """And Retry-After in seconds."""
    mover = limited(max_writers=1, wait_s=0.2)
    first = Upload(mover, "a")
    answer = mover.ask("PUT", "/images/a", b"x")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert first.finish() == 200


def test_the_hosts_limit_is_over_all_images(limited: StartLimited) -> None:
    """One writer on the host: another image's is too many."""
    mover = limited(host_writers=1, mode="reject")
    assert mover.ask("OPTIONS", "/images/a").json()["max_writers"] == 1
    first = Upload(mover, "a")
    assert mover.ask("PUT", "/images/b", b"x").status == 503
    assert first.finish() == 200
    assert mover.ask("PUT", "/images/b", b"x").status == 200


def test_an_exclusive_image_is_busy(limited: StartLimited) -> None:
    """409 for every other request but OPTIONS, which says 1."""
    mover = limited(exclusive=True, mode="reject")
    first = Upload(mover, "a")
    for method, target, body in (
        ("GET", "/images/a", None), ("HEAD", "/images/a", None), ("PUT", "/images/a", b"x"),
        ("PATCH", "/images/a", b'{"op": "flush"}'), ("POST", "/images/a/flush", None),
        ("GET", "/images/a/extents", None), ("GET", "/images/a/checksum", None),
    ):  # fmt: skip
        answer = mover.ask(method, target, body)
        assert answer.status == 409
        assert method == "HEAD" or answer.json() == {"error": "image busy"}
    assert mover.ask("OPTIONS", "/images/a").json()["max_readers"] == 1
    assert mover.ask("GET", "/images/b", range="bytes=0-0").status == 206
    assert first.finish() == 200
    assert mover.ask("GET", "/images/a", range="bytes=0-0").status == 206


def test_a_front_end_that_is_killed_leaves_its_seats(limited: StartLimited) -> None:
    """What it had admitted is over with it."""
    mover = limited(max_writers=1, mode="reject")
    upload = Upload(mover, "a")
    for pid in mover.front_end_pids():
        os.kill(pid, signal.SIGKILL)
    with upload.wire as wire:
        wire.rest()
    assert mover.ask("PUT", "/images/a", b"x").status == 200  # by one that was started in their place
