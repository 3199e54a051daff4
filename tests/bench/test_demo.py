"""The demo's exit status, its choice of the worker to kill, and its running guest."""

from __future__ import annotations

from pathlib import Path

import pytest

from mover.bench import demo
from mover.bench.demo import KILL_AFTER_BYTES, Worker, busy, other_than
from mover.bench.demo_guest import GuestCopy
from mover.bench.disk import make_empty
from mover.bench.errors import DifferenceError
from mover.bench.guest import SLOTS, last_stamp
from mover.cli.status import Status


def worker(pid: int | None, read: int | None = 0, written: int | None = 0) -> Worker:
    return Worker("nbd+unix:///run/socket/", pid, read, written)


def test_a_worker_is_killed_only_when_it_has_moved_enough() -> None:
    assert busy(worker(7, read=KILL_AFTER_BYTES), None) == 7
    assert busy(worker(7, written=KILL_AFTER_BYTES), None) == 7
    assert busy(worker(7, read=KILL_AFTER_BYTES - 1), None) is None


def test_what_it_moved_in_earlier_transfers_does_not_count() -> None:
    earlier = worker(7, read=500)
    assert busy(worker(7, read=KILL_AFTER_BYTES), earlier) is None
    assert busy(worker(7, read=KILL_AFTER_BYTES + 500), earlier) == 7


def test_what_another_worker_of_the_image_moved_earlier_does_not_count_either_way() -> None:
    assert busy(worker(8, read=KILL_AFTER_BYTES), worker(7, read=500)) == 8


def test_a_worker_that_is_not_there_or_does_not_answer_is_not_killed() -> None:
    assert busy(None, None) is None
    assert busy(worker(7, read=None, written=None), None) is None


def test_the_successor_is_a_worker_with_another_pid() -> None:
    assert other_than(worker(8), killed=7) == 8
    assert other_than(worker(7), killed=7) is None
    assert other_than(worker(None), killed=7) is None
    assert other_than(None, killed=7) is None


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (DifferenceError("a.raw and b.raw differ"), Status.VERIFICATION),
        (KeyboardInterrupt(), Status.INTERRUPTED),
        (None, Status.DONE),
    ],
)
def test_the_exit_status_is_0_only_when_every_comparison_held(
    monkeypatch: pytest.MonkeyPatch, end: BaseException | None, status: Status
) -> None:
    def run() -> None:
        if end is not None:
            raise end

    monkeypatch.setattr(demo, "_run", run)
    assert demo.main() == status


def test_a_point_in_time_has_every_write_before_its_last_and_none_after() -> None:
    stamps = [*range(SLOTS, SLOTS + 10), *range(10, SLOTS)]
    assert last_stamp(stamps) == SLOTS + 9
    torn = [*stamps[:20], stamps[20] + SLOTS, *stamps[21:]]
    with pytest.raises(DifferenceError, match=f"before its last, {20 + SLOTS}"):
        last_stamp(torn)


@pytest.mark.nbd
@pytest.mark.slow
def test_a_running_guests_disk_is_an_image_and_a_new_disk_by_two_commands(room: Path) -> None:
    """The demo's third part with a small disk; it raises where the new disk is not the guest's."""
    steps: list[str] = []
    said: list[str] = []
    source, size = room / "source.qcow2", 8 << 20
    GuestCopy(make_empty(source, size), room, size, lambda name, _s, _b: steps.append(name), said.append).show()
    assert steps == ["guest's disk to library", "library to a new disk"]
    assert [line.split()[2] for line in said if line.startswith("  mover image ")] == ["import", "export"]
