"""A process that hangs keeps its sockets open: it is found out by its silence, killed, and replaced."""

from __future__ import annotations

import os
import signal

import pytest

from tests.harness.fixtures import Images, StartMover
from tests.harness.patterns import MIB, mapped
from tests.harness.transfers import Doing, download
from tests.harness.waiting import wait_until

pytestmark = pytest.mark.nbd

# A second would do, but for a host that holds all of them up for as long.
SILENCE = {"supervisor": {"silence_s": 3.0}}


def test_a_get_outlives_a_worker_that_hangs(images: Images, start_mover: StartMover) -> None:
    """A worker is stopped in the middle of a GET: it is killed for its silence, and its successor goes on."""
    source = images.pattern("disk", 1, 64 * MIB)
    mover = start_mover({"disk": images.qemu_nbd(source)}, SILENCE)

    def stop() -> None:
        pid = mover.worker_pid()
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)

    with mapped(source) as expected:
        download(mover.tcp, "/images/disk", expected, {16 * MIB: stop})
    assert mover.workers()[0]["restarts"] == 1
    assert "it has said nothing for 3 s" in mover.log()
    mover.stop_clean()


def test_a_front_end_that_hangs_is_replaced(images: Images, start_mover: StartMover) -> None:
    """The only front end is stopped: it is killed for its silence, and the next one answers."""
    mover = start_mover({"disk": images.qemu_nbd(images.pattern("disk", 1, MIB))}, SILENCE)
    (pid,) = mover.front_end_pids()
    os.kill(pid, signal.SIGSTOP)
    wait_until("another front end is there", lambda: mover.front_end_pids() not in ([pid], []))
    answer = Doing(lambda: mover.ask("GET", "/images/disk", Range="bytes=0-9")).result()
    assert answer.status == 206
    mover.stop_clean()
