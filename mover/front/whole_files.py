"""Whole files: read by sessions that see one file to their end, replaced by sessions that nobody sees before theirs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from mover.front.errors import job_failed
from mover.front.jobs import tell
from mover.front.visit import Visit
from workers.lane.front_lane import FrontLane
from workers.lane.protocol import MOST_FILE_BYTES, Completion, Kind, Status


class OpenFile(msgspec.Struct, frozen=True):
    """A session: its number on the lane, and how many bytes the file has."""

    session: int
    size_bytes: int


@asynccontextmanager
async def reading(visit: Visit) -> AsyncIterator[OpenFile]:
    """The file that is there now; who replaces it meanwhile does not change what is read."""
    opened = await _session(visit.lane, Kind.OPEN, MOST_FILE_BYTES)
    if opened.status is not Status.OK:
        raise job_failed(opened, "open", 0, 0)
    try:
        yield OpenFile(opened.value, opened.covered)
    finally:
        tell(visit.lane, Kind.ROLLBACK, opened.value)


@asynccontextmanager
async def replacing(visit: Visit, length: int) -> AsyncIterator[OpenFile]:
    """A new file of `length` bytes. It takes the old one's place at the end, durably, unless there was an error."""
    transfer = visit.ticket.transfer
    begun = await _session(visit.lane, Kind.BEGIN, length, transfer)
    if begun.status is not Status.OK:
        raise job_failed(begun, "write", 0, length)
    try:
        yield OpenFile(begun.value, length)
        committed = await visit.lane.run(Kind.COMMIT, begun.value, transfer=transfer)
        if committed.status is not Status.OK:
            raise job_failed(committed, "replacing the file", 0, length)
    except BaseException:
        tell(visit.lane, Kind.ROLLBACK, begun.value)
        raise


async def _session(lane: FrontLane, kind: Kind, length: int, transfer: int = 0) -> Completion:
    """A new session, or why there is none. If its client leaves meanwhile, it is ended as soon as it is there."""
    in_flight = lane.submit(kind, length=length, transfer=transfer)
    try:
        return await asyncio.shield(in_flight.done)
    except asyncio.CancelledError:
        in_flight.done.add_done_callback(lambda done: _end_unwanted(lane, done))
        raise


def _end_unwanted(lane: FrontLane, done: asyncio.Future[Completion]) -> None:
    if done.exception() is None and done.result().status is Status.OK:
        tell(lane, Kind.ROLLBACK, done.result().value)
