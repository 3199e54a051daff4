"""Both ends of a lane in one process, over a real socket pair and real memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.harness.waiting import PATIENCE_S
from workers.lane.arena import Arena
from workers.lane.channel import pair
from workers.lane.front_lane import FrontLane
from workers.lane.protocol import Completion, ImageFacts, Job, Status
from workers.lane.worker_lane import WorkerLane

SLOT_BYTES = 4096

IMAGE = ImageFacts(
    size_bytes=1 << 20,
    read_only=False,
    can_flush=True,
    can_zero=True,
    has_extents=True,
    multi_conn=False,
    block_bytes=1,
    bitmaps=["monday"],
)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until it is true; nothing is waited for but the loop itself."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0)


async def readable(fd: int) -> None:
    """Wait until there is something to read."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        async with asyncio.timeout(PATIENCE_S):
            await ready.wait()
    finally:
        loop.remove_reader(fd)


async def jobs_of(worker: WorkerLane, count: int = 1) -> list[Job]:
    """The next `count` jobs that arrive at the worker."""
    found: list[Job] = []
    while len(found) < count:
        await readable(worker.doorbell)
        found += worker.jobs()
    return found


def complete(worker: WorkerLane, job: Job, status: Status = Status.OK, value: int = 0) -> None:
    """The worker's answer, published and rung for."""
    worker.publish(job, Completion(job.number, status, job.length, value))
    worker.ring()


class Ends:
    """A front end's lane and the workers that it meets, one after the other."""

    def __init__(self, slots: int = 4, request_slots: int = 2, replay_s: float = PATIENCE_S) -> None:
        self.closed: list[FrontLane] = []
        self.front = FrontLane(1, Arena(1, slots, SLOT_BYTES, request_slots), replay_s, self.closed.append)
        self.generation = 0
        self._workers: list[WorkerLane] = []

    def introduce(self) -> WorkerLane:
        """A new worker, which has accepted the front end's offer."""
        ours, theirs = pair()
        self.generation += 1
        self.front.attach(ours, self.generation)
        worker = WorkerLane(1, self.generation, 1, theirs)
        self._workers.append(worker)
        received = worker.channel.receive()
        assert received is not None
        worker.accept(*received)
        return worker

    async def open(self) -> WorkerLane:
        """A new worker, and the lane open to it."""
        worker = self.introduce()
        worker.open(IMAGE)
        await until(lambda: self.front.state.name == "OPEN")
        return worker

    async def kill(self, worker: WorkerLane) -> None:
        """The worker's end goes, as with its process; the front end has noticed."""
        worker.close()
        await until(lambda: self.front.state.name != "OPEN")

    def close(self) -> None:
        """The end of the test; the memory goes with its last user."""
        self.front.close("the test is over")
        for worker in self._workers:
            if not worker.closed:
                worker.close()
        self._workers.clear()
        self.closed.clear()
        del self.front
