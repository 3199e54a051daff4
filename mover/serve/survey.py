"""The body of `GET /workers`: what every worker says of itself, and what the system says of it."""

from __future__ import annotations

import asyncio

import msgspec
import psutil

from mover.serve.image_worker import ImageWorker
from mover.serve.image_workers import ImageWorkers
from mover.serve.states import WorkerState
from workers.messages import LaneUse, Statistics

# A worker answers from its loop, so one that takes longer is in trouble, and is shown to be.
ANSWER_S = 1.0


class WorkerRow(msgspec.Struct, frozen=True):
    """One worker; None stands for what nobody can say at the moment."""

    export: str
    pid: int | None
    state: str
    connections: int | None
    in_flight: int | None
    in_flight_peak: int | None
    bytes_read: int | None
    bytes_written: int | None
    restarts: int
    replays: int | None
    uss_bytes: int | None
    arena_bytes: int
    lanes: list[LaneUse]


async def survey(workers: ImageWorkers) -> bytes:
    """The JSON body: every worker that runs or is being replaced."""
    there = [worker for worker in workers if worker.state is not WorkerState.ABSENT]
    rows = await asyncio.gather(*(_row(worker) for worker in there))
    return msgspec.json.encode(rows)


async def statistics(workers: ImageWorkers) -> list[Statistics | None]:
    """What all running workers say of themselves; None of those that do not."""
    return await asyncio.gather(*(_asked(worker) for worker in workers if worker.pid is not None))


async def _asked(worker: ImageWorker) -> Statistics | None:
    try:
        async with asyncio.timeout(ANSWER_S):
            return await worker.statistics()
    except TimeoutError:
        return None


async def _row(worker: ImageWorker) -> WorkerRow:
    pid = worker.pid
    said = await _asked(worker)
    state = "restarting" if worker.pid != pid or pid is None else "not answering"
    arena_bytes = sum(lane.arena_bytes for lane in worker.lanes)
    return _filled(said, worker, pid, state, arena_bytes)


def _filled(
    statistics: Statistics | None, worker: ImageWorker, pid: int | None, state: str, arena_bytes: int
) -> WorkerRow:
    return WorkerRow(
        export=worker.key,
        pid=pid,
        state=statistics.state if statistics else state,
        connections=statistics.connections if statistics else None,
        in_flight=statistics.in_flight if statistics else None,
        in_flight_peak=statistics.in_flight_peak if statistics else None,
        bytes_read=statistics.bytes_read if statistics else None,
        bytes_written=statistics.bytes_written if statistics else None,
        restarts=worker.restarts,
        replays=statistics.replays if statistics else None,
        uss_bytes=_uss_bytes(pid),
        arena_bytes=arena_bytes,
        lanes=statistics.lanes if statistics else [],
    )


def _uss_bytes(pid: int | None) -> int | None:
    """Memory that would be free if the process ended; None if it has."""
    if pid is None:
        return None
    try:
        uss: int = psutil.Process(pid).memory_full_info().uss
    except psutil.Error:
        return None
    return uss
