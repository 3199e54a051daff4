"""A front end and its workers over a real lane: jobs, replay, abandoning, deadlines, the end."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator

import pytest

from tests.harness.waiting import PATIENCE_S
from tests.lane.ends import IMAGE, SLOT_BYTES, Ends, complete, jobs_of, until
from workers.lane.attachment import CELLS
from workers.lane.channel import pair
from workers.lane.lane_states import STATES, LaneEvent, LaneLost, LaneState
from workers.lane.protocol import Completion, Flag, Kind, Status
from workers.lane.slots import Owner

pytestmark = pytest.mark.usefixtures("loop")


@pytest.fixture
def ends(loop: asyncio.AbstractEventLoop) -> Iterator[Ends]:
    async def make() -> Ends:
        return Ends()

    made = loop.run_until_complete(make())
    yield made
    made.close()


def take(ends: Ends) -> int:
    slot = ends.front.slots.take_nowait(ends.front.slots.enter())
    assert slot is not None
    return slot


# -- jobs ------------------------------------------------------------------------------------------------------


async def test_a_job_arrives_with_all_that_was_asked_and_its_completion_with_all_that_was_answered(ends: Ends) -> None:
    worker = await ends.open()
    slot = take(ends)
    asked = ends.front.submit(
        Kind.EXTENTS, 2**63, 2**40, slot=slot, transfer=2**32 - 1, flags=Flag.MAY_HOLE, context=2**16 - 1
    )
    (job,) = await jobs_of(worker)
    assert job == asked.job
    worker.publish(job, Completion(job.number, Status.FAILED, 2**40, 5))
    worker.ring()
    assert await asked.done == Completion(job.number, Status.FAILED, 2**40, 5)


async def test_both_ends_see_the_same_bytes_in_a_slot(ends: Ends) -> None:
    worker = await ends.open()
    slot = take(ends)
    ends.front.views[slot][:5] = b"hello"
    asked = ends.front.submit(Kind.WRITE, 0, 5, slot=slot)
    (job,) = await jobs_of(worker)
    assert len(worker.slot(job)) == SLOT_BYTES
    assert bytes(worker.slot(job)[:5]) == b"hello"
    worker.slot(job)[-5:] = b"world"
    complete(worker, job)
    await asked.done
    assert bytes(ends.front.views[slot][-5:]) == b"world"


async def test_completions_may_come_in_any_order_and_each_finds_its_own_job(ends: Ends) -> None:
    worker = await ends.open()
    asked = [ends.front.submit(Kind.ZERO, 10 * number, 10) for number in range(4)]
    jobs = await jobs_of(worker, 4)
    for job in (jobs[2], jobs[0], jobs[3], jobs[1]):
        complete(worker, job, Status.REFUSED, value=job.number)
    for number, one in enumerate(asked):
        assert (await one.done).value == jobs[number].number
    assert ends.front.in_flight == 0


async def test_more_jobs_than_cells_at_once_wait_for_room_in_their_order(ends: Ends) -> None:
    """300 flushes have no slots to bound them, and all may complete in the same moment."""
    worker = await ends.open()
    asked = [ends.front.submit(Kind.FLUSH) for _ in range(CELLS + 44)]
    first = await jobs_of(worker, CELLS)
    assert len(first) == CELLS
    for job in first:
        complete(worker, job)
    rest = await jobs_of(worker, 44)
    for job in rest:
        complete(worker, job)
    await asyncio.gather(*(one.done for one in asked))
    assert [job.number for job in first + rest] == [one.job.number for one in asked]


async def test_a_slot_that_is_not_the_front_ends_cannot_be_submitted(ends: Ends) -> None:
    await ends.open()
    slot = take(ends)
    ends.front.submit(Kind.READ, 0, 10, slot=slot)
    in_flight = ends.front.in_flight
    with pytest.raises(Exception, match="cannot SUBMIT"):
        ends.front.submit(Kind.READ, 0, 10, slot=slot)
    assert ends.front.in_flight == in_flight


# -- opening ---------------------------------------------------------------------------------------------------


async def test_what_the_worker_knows_of_the_image_is_what_the_front_end_learns(ends: Ends) -> None:
    opened = asyncio.ensure_future(ends.front.opened())
    await ends.open()
    assert await opened == IMAGE
    assert await ends.front.opened() == IMAGE


async def test_jobs_wait_for_the_first_worker_and_for_its_being_ready(ends: Ends) -> None:
    asked = ends.front.submit(Kind.FLUSH)
    worker = ends.introduce()
    assert list(worker.jobs()) == []
    worker.open(IMAGE)
    (job,) = await jobs_of(worker)
    assert job == asked.job


async def test_a_worker_that_has_no_image_says_why_to_all_who_wait(ends: Ends) -> None:
    worker = ends.introduce()
    opened, asked = asyncio.ensure_future(ends.front.opened()), ends.front.submit(Kind.FLUSH)
    worker.refuse("no such export")
    for waiting in (opened, asked.done):
        with pytest.raises(LaneLost, match="no such export"):
            await waiting
    with pytest.raises(LaneLost):
        ends.front.submit(Kind.FLUSH)
    assert ends.closed == [ends.front]


async def test_a_worker_that_dies_before_it_was_ready_leaves_the_lane_as_it_was(ends: Ends) -> None:
    asked = ends.front.submit(Kind.FLUSH)
    first = ends.introduce()
    first.close()
    await until(lambda: ends.front._attachment is None)
    assert ends.front.state is LaneState.OPENING
    second = await ends.open()
    (job,) = await jobs_of(second)
    assert job == asked.job
    assert ends.front.replays == 0


async def test_a_worker_that_was_dead_when_introduced_is_noticed(ends: Ends) -> None:
    ours, theirs = pair()
    theirs.close()
    ends.front.attach(ours, 7)
    await until(lambda: ends.front._attachment is None)
    assert ends.front.state is LaneState.OPENING


# -- replay ----------------------------------------------------------------------------------------------------


async def test_only_what_was_not_confirmed_is_submitted_again_in_its_order_with_its_bytes(ends: Ends) -> None:
    first = await ends.open()
    slot = take(ends)
    ends.front.views[slot][:4] = b"keep"
    asked = [ends.front.submit(Kind.ZERO, number, 1) for number in range(3)]
    asked.append(ends.front.submit(Kind.WRITE, 100, 4, slot=slot))
    jobs = await jobs_of(first, 4)
    first.publish(jobs[1], Completion(jobs[1].number, Status.OK, 1))  # published, and killed before it could ring
    await ends.kill(first)
    assert asked[1].done.done()
    assert ends.front.state is LaneState.DETACHED
    asked.append(ends.front.submit(Kind.FLUSH))
    second = await ends.open()
    assert second.resumes
    again = await jobs_of(second, 4)
    assert again == [asked[number].job for number in (0, 2, 3, 4)]
    assert bytes(second.slot(again[2])[:4]) == b"keep"
    for job in again:
        complete(second, job)
    await asyncio.gather(*(one.done for one in asked))
    assert ends.front.replays == 1


async def test_what_a_worker_never_read_of_its_ring_is_submitted_again(ends: Ends) -> None:
    first = await ends.open()
    asked = ends.front.submit(Kind.FLUSH)
    await ends.kill(first)
    second = await ends.open()
    (job,) = await jobs_of(second)
    complete(second, job)
    assert (await asked.done).status is Status.OK


async def test_the_next_worker_may_come_before_the_end_of_the_last_one_was_seen(ends: Ends) -> None:
    """The supervisor's message and the end of the lane's socket come by two ways, in either order."""
    first = await ends.open()
    asked = ends.front.submit(Kind.FLUSH)
    await jobs_of(first)
    first.close()
    second = await ends.open()
    (job,) = await jobs_of(second)
    complete(second, job)
    await asked.done
    assert ends.front.replays == 1


async def test_a_worker_counts_writes_and_its_successor_never_shows_a_number_of_his(ends: Ends) -> None:
    """Both begin at 0: what a GET knows of zeros before the death must not look current after it."""
    seen = [ends.front.writes_seen]
    for _ in range(3):
        worker = await ends.open()
        for writes in range(3):
            worker.note_writes(writes)
            seen.append(ends.front.writes_seen)
        await ends.kill(worker)
        seen.append(ends.front.writes_seen)
    assert len(set(seen)) == len(seen)


# -- nobody waits any more -------------------------------------------------------------------------------------


async def test_an_abandoned_jobs_slot_comes_back_when_the_worker_is_done_with_it(ends: Ends) -> None:
    worker = await ends.open()
    slot = take(ends)
    asked = ends.front.submit(Kind.READ, 0, 10, slot=slot)
    (job,) = await jobs_of(worker)
    ends.front.abandon(asked)
    assert ends.front.slots.owner(slot) is Owner.QUARANTINE
    complete(worker, job)
    await until(lambda: ends.front.slots.owner(slot) is Owner.FREE)
    assert asked.done.cancelled()


async def test_an_abandoned_job_is_not_submitted_again_and_its_slot_comes_back_with_the_next_worker(ends: Ends) -> None:
    first = await ends.open()
    gone, stays = take(ends), take(ends)
    abandoned = ends.front.submit(Kind.READ, 0, 10, slot=gone)
    kept = ends.front.submit(Kind.READ, 10, 10, slot=stays)
    await jobs_of(first, 2)
    await ends.kill(first)
    ends.front.abandon(abandoned)
    assert ends.front.slots.owner(gone) is Owner.QUARANTINE  # the fence is the supervisor's, and not told yet
    second = await ends.open()
    assert ends.front.slots.owner(gone) is Owner.FREE
    (job,) = await jobs_of(second)
    assert job == kept.job


async def test_a_job_that_no_worker_has_seen_is_forgotten_when_abandoned(ends: Ends) -> None:
    slot = take(ends)
    asked = ends.front.submit(Kind.WRITE, 0, 10, slot=slot)
    ends.front.abandon(asked)
    assert (ends.front.slots.owner(slot), ends.front.in_flight) == (Owner.FREE, 0)
    worker = await ends.open()
    flush = ends.front.submit(Kind.FLUSH)
    assert await jobs_of(worker) == [flush.job]


async def test_abandoning_what_has_ended_gives_the_slot_back(ends: Ends) -> None:
    worker = await ends.open()
    slot = take(ends)
    asked = ends.front.submit(Kind.READ, 0, 10, slot=slot)
    (job,) = await jobs_of(worker)
    complete(worker, job)
    await asked.done
    assert ends.front.slots.owner(slot) is Owner.FRONT
    ends.front.abandon(asked)
    assert ends.front.slots.owner(slot) is Owner.FREE


async def test_a_cancelled_run_leaves_nothing_behind_whenever_it_is_cancelled(ends: Ends) -> None:
    worker = await ends.open()
    for answered in (False, True):
        slot = take(ends)
        running = asyncio.ensure_future(ends.front.run(Kind.READ, 0, 10, slot=slot))
        (job,) = await jobs_of(worker)
        if answered:
            complete(worker, job)
            await until(lambda: ends.front.in_flight == 0)
        running.cancel()
        await asyncio.wait([running])
        if not answered:
            complete(worker, job)
        elif not running.cancelled():  # the answer came before the end: the slot is the caller's
            ends.front.give_back(slot)
        await until(lambda: ends.front.slots.used == 0)


# -- slots -----------------------------------------------------------------------------------------------------


async def test_who_waits_for_a_slot_gets_the_next_one(ends: Ends) -> None:
    holder = ends.front.slots.enter()
    taken = [await ends.front.take_slot(holder) for _ in range(2)]  # its share
    waiting = asyncio.ensure_future(ends.front.take_slot(holder))
    await until(lambda: ends.front.slots.waiting == 1)
    ends.front.give_back(taken[0])
    assert await waiting == taken[0]


async def test_who_is_cancelled_while_waiting_takes_no_slot_with_him(ends: Ends) -> None:
    holder = ends.front.slots.enter()
    taken = [await ends.front.take_slot(holder) for _ in range(2)]
    for given in (False, True):
        waiting = asyncio.ensure_future(ends.front.take_slot(holder))
        await until(lambda: ends.front.slots.waiting == 1)
        if given:
            ends.front.give_back(taken.pop())
        waiting.cancel()
        await asyncio.wait([waiting])
        if not waiting.cancelled():  # it was given first
            ends.front.give_back(waiting.result())
        assert ends.front.slots.waiting == 0
        assert ends.front.slots.used == len(taken)


class Guest:
    """A request that holds slots and whose client moves or not."""

    def __init__(self, ends: Ends, moves: bool) -> None:
        self.holder = ends.front.slots.enter()
        self.slots: list[int] = []
        self.waits_since_s = math.inf if moves else time.monotonic()
        self.surrendered = 0
        self._front = ends.front
        ends.front.watch(self)

    async def take(self) -> None:
        self.slots.append(await self._front.take_slot(self.holder))

    def surrender(self) -> None:
        self.surrendered += 1
        while self.slots:
            self._front.give_back(self.slots.pop())


async def test_who_waits_in_vain_takes_slots_from_those_whose_clients_do_not_move(ends: Ends) -> None:
    stalled, moving = Guest(ends, moves=False), Guest(ends, moves=True)
    for guest in (stalled, moving, stalled, moving):
        await guest.take()
    taken = set(stalled.slots)
    async with asyncio.timeout(PATIENCE_S):
        assert await ends.front.take_slot(ends.front.slots.enter()) in taken
    assert (stalled.surrendered, moving.surrendered, len(moving.slots)) == (1, 0, 2)


async def test_who_misses_slots_without_waiting_has_them_from_the_stalled_too(ends: Ends) -> None:
    """A fast request that has some slots never waits; it must not go on with them alone."""
    stalled, moving, fast = Guest(ends, moves=False), Guest(ends, moves=True), ends.front.slots.enter()
    for guest in (stalled, stalled, moving):
        await guest.take()
    await ends.front.take_slot(fast)
    assert ends.front.slots.take_nowait(fast) is None
    await until(lambda: stalled.surrendered > 0)
    assert ends.front.slots.take_nowait(fast) is not None


async def test_the_stalled_do_not_count_where_slots_are_shared_out(ends: Ends) -> None:
    """With others that do not move, one that does has as many slots as if it were alone, until they move again."""
    front = ends.front
    alone = front.slots.share
    fast = front.slots.enter()
    guests = [Guest(ends, moves=False) for _ in range(len(front.slots))]
    assert front.slots.share == 1
    await until(lambda: front.slots.share == alone)
    for guest in guests:
        guest.waits_since_s = math.inf
    await until(lambda: front.slots.share == 1)
    for guest in guests:
        front.unwatch(guest)
        front.slots.leave(guest.holder)
    assert front.slots.share == alone
    front.slots.leave(fast)


async def test_who_waits_for_a_slot_of_a_lane_that_is_closed_is_told(ends: Ends) -> None:
    holder = ends.front.slots.enter()
    for _ in range(2):
        await ends.front.take_slot(holder)
    waiting = asyncio.ensure_future(ends.front.take_slot(holder))
    await until(lambda: ends.front.slots.waiting == 1)
    ends.front.close("closed")
    with pytest.raises(LaneLost, match="closed"):
        await waiting
    assert ends.front.slots.waiting == 0


# -- the end ---------------------------------------------------------------------------------------------------


async def test_jobs_of_a_worker_that_nobody_succeeds_end_with_the_deadline() -> None:
    ends = Ends(replay_s=0.01)
    worker = await ends.open()
    asked = ends.front.submit(Kind.FLUSH)
    worker.close()
    with pytest.raises(LaneLost, match="did not come back"):
        await asked.done
    assert ends.closed == [ends.front]


async def test_the_deadline_ends_with_the_successors_opening(ends: Ends) -> None:
    asked = ends.front.submit(Kind.FLUSH)
    await ends.kill(await ends.open())
    deadline = ends.front._deadline
    assert deadline is not None
    worker = await ends.open()
    assert deadline.cancelled()
    (job,) = await jobs_of(worker)
    complete(worker, job)
    await asked.done


async def test_a_closed_lane_is_closed_once_and_refuses_everything_with_its_reason(ends: Ends) -> None:
    worker = await ends.open()
    slot = take(ends)
    asked = ends.front.submit(Kind.READ, 0, 10, slot=slot)
    (job,) = await jobs_of(worker)
    ends.front.close("first", 3.0)
    ends.front.close("second")
    for lost in (asked.done, ends.front.opened(), ends.front.run(Kind.FLUSH)):
        with pytest.raises(LaneLost, match="first") as error:
            await lost
        assert error.value.retry_after_s == 3.0
    ends.front.abandon(asked)
    ends.front.give_back(slot)
    complete(worker, job)  # into the void
    assert ends.closed == [ends.front]


def test_a_lanes_states_are_total_but_for_closed_which_nothing_leaves() -> None:
    for state in LaneState:
        for event in LaneEvent:
            possible = (state, event) in STATES
            impossible = state is LaneState.CLOSED or (state is LaneState.OPEN and event is LaneEvent.OPENED)
            assert possible is not impossible
