"""A worker that dies at any moment: the client notices nothing but the time it takes."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.harness.fixtures import Images, StartMover
from tests.harness.http import Answer
from tests.harness.mover import Mover
from tests.harness.patterns import MIB, assert_same_file, mapped
from tests.harness.transfers import Doing, Moments, download, upload
from tests.harness.waiting import wait_until

pytestmark = pytest.mark.nbd

SIZE = 128 * MIB
KILLS = 10


def killings(mover: Mover, rng: random.Random) -> Moments:
    """KILLS kills in the middle of a transfer of SIZE bytes.

    The pid is asked for some way ahead of the kill: the transfer then moves at full speed again when it comes.
    """
    victims = [0]

    def choose() -> None:
        victims.append(wait_until("a new worker runs", lambda: another_pid(mover, victims[-1])))

    moments: dict[int, Callable[[], object]] = {}
    share = SIZE // KILLS
    for start in range(0, SIZE - share + 1, share):
        moments[start] = choose
        moments[start + rng.randrange(share // 4, share)] = lambda: os.kill(victims[-1], signal.SIGKILL)
    return moments


def another_pid(mover: Mover, pid: int) -> int | None:
    """The worker's pid once it is not `pid`, which may be dead without the supervisor's knowing yet."""
    found = mover.worker_pid()
    return found if found != pid else None


def restarts(mover: Mover) -> int:
    """How often the only worker was started again."""
    count: int = mover.workers()[0]["restarts"]
    return count


def has_worked(mover: Mover) -> bool:
    """Whether the worker has done something since it was started: a worker that only ever dies is given up."""
    return any(row["bytes_read"] or row["bytes_written"] for row in mover.workers())


@pytest.mark.parametrize("seed", [1, 2])
def test_a_get_outlives_ten_kills_of_its_worker(seed: int, images: Images, start_mover: StartMover) -> None:
    """Ten workers die while one GET runs: it is a 200 with every byte right, and nothing is left of the dead."""
    source = images.pattern("disk", 1, SIZE)
    mover = start_mover({"disk": images.qemu_nbd(source)})
    with mapped(source) as expected:
        download(mover.tcp, "/images/disk", expected)
        before = mover.settled_census()
        download(mover.tcp, "/images/disk", expected, killings(mover, random.Random(seed)))
        wait_until("the last victim was replaced", lambda: restarts(mover) == KILLS)
        download(mover.tcp, "/images/disk", expected)
    mover.assert_returns_to(before)
    mover.stop_clean()


@pytest.mark.parametrize(("seed", "flush"), [(3, "y"), (4, "n")])
def test_a_put_outlives_ten_kills_of_its_worker(seed: int, flush: str, images: Images, start_mover: StartMover) -> None:
    """Ten workers die while one PUT runs: it is a 200, and the image's file equals the source."""
    source, disk = images.pattern("source", 1, SIZE), images.pattern("disk", 2, SIZE)
    mover = start_mover({"disk": images.qemu_nbd(disk)})
    with mapped(source) as sent:
        assert mover.ask("PUT", "/images/disk?flush=n", sent[:MIB]).status == 200
        before = mover.settled_census()
        answer = upload(mover.tcp, f"/images/disk?flush={flush}", sent, killings(mover, random.Random(seed)))
    assert (answer.status, answer.json()) == (200, {"ok": True, "bytes_written": SIZE, "flushed": flush == "y"})
    assert_same_file(disk, source)
    wait_until("the last victim was replaced", lambda: restarts(mover) == KILLS)
    assert mover.ask("POST", "/images/disk/flush").json()["flushed"] is True
    mover.assert_returns_to(before)
    mover.stop_clean()


REQUESTS: dict[str, Callable[[Mover], Answer]] = {
    "small read": lambda mover: mover.ask("GET", "/images/disk", Range="bytes=4096-8191"),
    "small write": lambda mover: mover.ask("PUT", "/images/disk", bytes(range(256)) * 16),
    "zero": lambda mover: mover.ask("PATCH", "/images/disk", b'{"op": "zero", "size": 1048576, "flush": true}'),
    "flush": lambda mover: mover.ask("POST", "/images/disk/flush"),
    "extents": lambda mover: mover.ask("GET", "/images/disk/extents"),
}


@pytest.mark.parametrize("request_name", REQUESTS)
def test_whatever_was_in_flight_is_done_by_the_successor(
    request_name: str, images: Images, start_mover: StartMover
) -> None:
    """A worker dies while the server sits on its command: the request succeeds all the same."""
    server = images.qemu_nbd(images.pattern("disk", 1, 4 * MIB))
    mover = start_mover({"disk": server})
    assert mover.ask("GET", "/images/disk", Range="bytes=0-9").status == 206
    before = mover.settled_census()
    server.pause()
    request = Doing(partial(REQUESTS[request_name], mover))
    wait_until("a command is in flight", lambda: mover.workers()[0]["in_flight"])
    mover.kill_worker()
    server.resume()
    answer = request.result()
    assert answer.status in (200, 206), answer
    assert restarts(mover) == 1
    mover.assert_returns_to(before)
    mover.stop_clean()


def test_a_worker_that_only_dies_is_given_up(images: Images, start_mover: StartMover) -> None:
    """After five deaths without one completed job the request is a 503 that says so; the next one starts afresh."""
    server = images.qemu_nbd(images.pattern("disk", 1, 4 * MIB))
    settings = {"supervisor": {"backoff_s": 0.1}, "worker": {"fence_s": 0.1, "settle_s": 0.1}}
    mover = start_mover({"disk": server}, settings)
    assert mover.ask("GET", "/images/disk", Range="bytes=0-9").status == 206
    before = mover.settled_census()
    server.pause()
    request = Doing(lambda: mover.ask("GET", "/images/disk", Range="bytes=0-9"))
    wait_until("a command is in flight", lambda: mover.workers()[0]["in_flight"])
    killed: set[int] = set()
    while not request.done:
        pid = mover.worker_pid()
        if pid is not None and pid not in killed:
            killed.add(mover.kill_worker())
    answer = request.result()
    assert answer.status in (502, 503)
    assert "died 5 times" in answer.json()["error"]
    server.resume()
    wait_until("it is tried again", lambda: mover.ask("GET", "/images/disk", Range="bytes=0-9").status == 206)
    mover.assert_returns_to(before)
    mover.stop_clean()


def test_eight_clients_outlive_the_kills_of_their_worker(images: Images, start_mover: StartMover) -> None:
    """Four readers and four writers share a worker that is killed again and again: all of them get what is theirs."""
    part = 16 * MIB
    source: Path = images.pattern("source", 1, 8 * part)
    disk = images.pattern("disk", 1, 8 * part)
    mover = start_mover({"disk": images.qemu_nbd(disk)}, front_ends=2)

    def write(number: int, sent: memoryview) -> None:
        at = number * part
        place = f"bytes {at}-{at + part - 1}/*"
        for _ in range(4):
            assert upload(mover.tcp, "/images/disk", sent[at : at + part], content_range=place).status == 200

    with mapped(source) as expected:
        clients = [Doing(partial(write, number, expected)) for number in range(4)]
        clients += [Doing(partial(download, mover.tcp, "/images/disk", expected)) for _ in range(4)]
        for _ in range(KILLS):
            wait_until("a worker works, or all is done", lambda: has_worked(mover) or all(one.done for one in clients))
            mover.kill_worker()
        for client in clients:
            client.result()
    assert_same_file(disk, source)
    mover.stop_clean()
