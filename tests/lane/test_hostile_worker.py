"""A worker parses what guests' servers send, so it may be anybody's: what cannot be ends the lane cleanly."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator

import msgspec
import pytest

from tests.lane.ends import IMAGE, Ends, jobs_of, until
from workers.lane.channel import ChannelClosed
from workers.lane.lane_states import LaneLost, LaneState
from workers.lane.protocol import VERSION, Completion, Job, Kind, LaneFailed, LaneOffer, LaneOpened, Status
from workers.lane.ring import COMPLETION_HEAD
from workers.lane.worker_lane import WorkerLane

pytestmark = pytest.mark.usefixtures("loop")

Mischief = Callable[[WorkerLane, Job], None]


@pytest.fixture
def ends(loop: asyncio.AbstractEventLoop) -> Iterator[Ends]:
    async def make() -> Ends:
        return Ends()

    made = loop.run_until_complete(make())
    yield made
    made.close()


def push(worker: WorkerLane, generation: int, status: int, number: int, covered: int, value: int = 0) -> None:
    worker._completions.push(generation, status, number, covered, value)
    worker.ring()


def unknown_job(worker: WorkerLane, job: Job) -> None:
    push(worker, 1, Status.OK, job.number + 1000, 0)


def same_job_twice(worker: WorkerLane, job: Job) -> None:
    push(worker, 1, Status.OK, job.number, 0)
    push(worker, 1, Status.OK, job.number, 0)


def another_generation(worker: WorkerLane, job: Job) -> None:
    push(worker, 2, Status.OK, job.number, 0)


def more_than_was_asked(worker: WorkerLane, job: Job) -> None:
    push(worker, 1, Status.OK, job.number, job.length + 1)


def no_such_status(worker: WorkerLane, job: Job) -> None:
    push(worker, 1, 250, job.number, 0)


def head_too_far(worker: WorkerLane, job: Job) -> None:
    assert worker._rings is not None
    worker._rings.words[COMPLETION_HEAD] = 2**64 - 1
    worker.ring()


def head_without_cells(worker: WorkerLane, job: Job) -> None:
    assert worker._rings is not None
    worker._rings.words[COMPLETION_HEAD] = 2
    worker.ring()


def opened_twice(worker: WorkerLane, job: Job) -> None:
    worker.open(IMAGE)


BREAKS: list[Mischief] = [
    unknown_job,
    same_job_twice,
    another_generation,
    more_than_was_asked,
    no_such_status,
    head_too_far,
    head_without_cells,
    opened_twice,
]


@pytest.mark.parametrize("mischief", BREAKS)
async def test_what_cannot_be_closes_the_lane_and_every_job_hears_of_it(ends: Ends, mischief: Mischief) -> None:
    worker = await ends.open()
    asked = ends.front.submit(Kind.ZERO, 0, 10)
    other = ends.front.submit(Kind.FLUSH)
    job, _ = await jobs_of(worker, 2)
    mischief(worker, job)
    with pytest.raises(LaneLost):
        await other.done
    await asyncio.wait([asked.done])
    assert ends.front.state is LaneState.CLOSED
    assert ends.closed == [ends.front]


@pytest.mark.parametrize("mischief", [one for one in BREAKS if one is not opened_twice])
async def test_what_a_worker_published_last_may_be_broken_too(ends: Ends, mischief: Mischief) -> None:
    """It is read when the worker's end is noticed, and the lane closes instead of waiting for a successor."""
    worker = await ends.open()
    other = ends.front.submit(Kind.FLUSH)
    ends.front.submit(Kind.ZERO, 0, 10)
    _, job = await jobs_of(worker, 2)
    worker.ring = lambda: None  # type: ignore[method-assign]  # killed before it could
    mischief(worker, job)
    worker.close()
    with pytest.raises(LaneLost):
        await other.done
    assert ends.front.state is LaneState.CLOSED


async def test_a_successor_of_a_worker_whose_last_words_were_broken_is_not_met(ends: Ends) -> None:
    worker = await ends.open()
    ends.front.submit(Kind.FLUSH)
    (job,) = await jobs_of(worker)
    unknown_job(worker, job)
    with pytest.raises(ChannelClosed):
        ends.introduce()  # it gets no offer
    assert ends.front.state is LaneState.CLOSED
    assert ends.closed == [ends.front]


async def test_a_job_that_was_not_sent_yet_cannot_be_completed(ends: Ends) -> None:
    worker = await ends.open()
    asked = [ends.front.submit(Kind.FLUSH) for _ in range(300)]
    await jobs_of(worker, 256)
    worker.publish(asked[299].job, Completion(asked[299].job.number, Status.OK))
    worker.ring()
    with pytest.raises(LaneLost):
        await asked[299].done


@pytest.mark.parametrize(
    "packet",
    [
        b"\xc1garbage",
        msgspec.msgpack.encode(LaneOffer(VERSION, 1, 1, 1, 1, False)),
        msgspec.msgpack.encode(LaneOpened(VERSION, 1, IMAGE)).replace(b"monday", b"\xff\xff\xff\xff\xff\xff"),
    ],
    ids=["garbage", "an offer", "no UTF-8"],
)
async def test_a_message_that_is_none_is_as_good_as_its_end_and_its_descriptors_are_closed(
    ends: Ends, packet: bytes
) -> None:
    worker = ends.introduce()
    socket.send_fds(worker.channel._sock, [packet], [worker.doorbell])
    await until(lambda: ends.front._attachment is None)
    assert ends.front.state is LaneState.OPENING


async def test_descriptors_that_come_with_a_message_are_closed(ends: Ends) -> None:
    """The fixture of every test here counts them."""
    worker = ends.introduce()
    worker.channel.send(LaneOpened(VERSION, 1, IMAGE), [worker.doorbell, worker.doorbell])
    await ends.front.opened()
    worker.channel.send(LaneFailed("why not"), [worker.doorbell])
    await until(lambda: ends.front.lost is not None)


@pytest.mark.parametrize(("version", "generation"), [(VERSION + 1, 1), (VERSION, 2), (VERSION, 0)])
async def test_another_version_or_generation_is_not_talked_to(ends: Ends, version: int, generation: int) -> None:
    worker = ends.introduce()
    worker.channel.send(LaneOpened(version, generation, IMAGE))
    with pytest.raises(LaneLost, match="version"):
        await ends.front.opened()


async def test_a_ring_without_a_completion_is_nothing(ends: Ends) -> None:
    worker = await ends.open()
    asked = ends.front.submit(Kind.FLUSH)
    (job,) = await jobs_of(worker)
    worker.ring()
    os.eventfd_read(worker._to_front)  # and stolen again, as nothing forbids
    worker.publish(job, Completion(job.number, Status.OK))
    worker.ring()
    assert (await asked.done).status is Status.OK
