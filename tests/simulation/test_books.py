"""The books and what else the simulation made necessary, each rule by itself."""

from __future__ import annotations

from tests.simulation.front import InFlight
from workers.image.range_set import RangeSet
from workers.lane.books import Books
from workers.lane.lost_format import most_ranges, pack, unpack
from workers.lane.protocol import Completion, Job, Kind, Status
from workers.lane.slots import Owner, Slots


class Lane:
    """Books on two slots, and a worker that takes what it is given while it is there."""

    def __init__(self, most: int = 8, slots: Slots | None = None) -> None:
        self.slots = slots or Slots(2, 2)
        self.books: Books[InFlight] = Books(self.slots, most)
        self.there = True
        self.got: list[int] = []

    def push(self, job: Job) -> bool:
        if self.there:
            self.got.append(job.number)
        return self.there

    def submit(self, kind: Kind = Kind.FLUSH) -> InFlight:
        slot = self.slots.take_nowait(self.slots.enter()) if kind is Kind.WRITE else None
        entry = InFlight(self.books.job(kind, slot=-1 if slot is None else slot))
        self.books.enter(entry, self.push)
        return entry


def test_what_nobody_confirmed_is_submitted_again_in_order() -> None:
    """The completed one is not, nor the one that nobody waits for."""
    lane = Lane()
    done, left, first, second = (lane.submit() for _ in range(4))
    lane.books.complete(Completion(done.job.number, Status.OK))
    lane.books.abandon(left)
    lane.got.clear()
    lane.books.reopen(lane.push)
    assert lane.got == [first.job.number, second.job.number]


def test_a_slot_abandoned_while_there_is_no_worker_comes_back_with_the_next_one() -> None:
    """The dead one may have had it; the next one has not."""
    lane = Lane()
    entry = lane.submit(Kind.WRITE)
    lane.books.abandon(entry)
    assert lane.slots.owner(entry.job.slot) is Owner.QUARANTINE
    lane.books.reopen(lane.push)
    assert lane.slots.owner(entry.job.slot) is Owner.FREE


def test_a_slot_that_another_lanes_worker_may_write_into_stays_in_quarantine() -> None:
    """Two lanes share an arena; a worker's death says nothing of what the other one has."""
    one = Lane()
    other = Lane(slots=one.slots)
    entry = one.submit(Kind.WRITE)
    one.books.abandon(entry)
    other.books.reopen(other.push)
    assert one.slots.owner(entry.job.slot) is Owner.QUARANTINE
    one.books.complete(Completion(entry.job.number, Status.OK))
    assert one.slots.owner(entry.job.slot) is Owner.FREE


def test_a_job_abandoned_before_a_worker_saw_it_is_never_submitted() -> None:
    """It would land on what its client has sent by another lane since."""
    lane = Lane()
    lane.there = False
    entry = lane.submit(Kind.WRITE)
    lane.books.abandon(entry)
    assert lane.slots.owner(entry.job.slot) is Owner.FREE
    lane.there = True
    lane.books.reopen(lane.push)
    assert not lane.got


def test_no_more_jobs_are_with_the_worker_than_its_ring_has_cells() -> None:
    """The third waits for a completion, though there is room to submit it."""
    lane = Lane(most=2)
    first, _, third = (lane.submit() for _ in range(3))
    assert third.job.number not in lane.got
    lane.books.complete(Completion(first.job.number, Status.OK))
    lane.books.push_unsent(lane.push)
    assert lane.got[-1] == third.job.number


def test_more_lost_ranges_than_a_slot_holds_become_wider_ones() -> None:
    """The smallest gaps are filled: nothing that is lost goes unnamed."""
    slot = memoryview(bytearray(8 + 2 * 16))
    lost = RangeSet([(0, 2), (10, 2), (13, 2)])
    lost.thin(most_ranges(slot))
    filled = pack(slot, 7, list(lost))
    assert unpack(slot[:filled]) == (7, [(0, 2), (10, 5)])
