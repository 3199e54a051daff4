"""The extents of an image as JSON, from a lane's answers a window at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from mover.front.errors import RequestError, job_failed
from workers.lane.extents_format import DIRTY, HOLE, ZERO, ExtentsBroken, unpack_all
from workers.lane.front_lane import FrontLane
from workers.lane.protocol import Kind, Status
from workers.lane.slots import Holder

Run = tuple[int, int, int]
"""Start, length, flags."""


class Allocation(msgspec.Struct):
    """An extent of the zero context."""

    start: int
    length: int
    zero: bool
    hole: bool


class Change(msgspec.Struct):
    """An extent of the dirty context."""

    start: int
    length: int
    dirty: bool
    zero: bool


async def runs(lane: FrontLane, holder: Holder, size: int, context: int) -> AsyncIterator[list[Run]]:
    """All extents of the image in lists, neighbours merged over their borders too. Raises RequestError, LaneLost.

    `context` is 0 for allocation, else the bitmap's number on the lane. An export without extents is all data.
    """
    mask = DIRTY | ZERO if context else HOLE | ZERO
    held: Run | None = None
    at = 0
    while at < size:
        window = await _window(lane, holder, at, size - at, context)
        merged: list[Run] = []
        for length, all_flags in window:
            flags = all_flags & mask
            if held is not None and held[2] == flags:
                held = (held[0], held[1] + length, flags)
            else:
                if held is not None:
                    merged.append(held)
                held = (at, length, flags)
            at += length
        if merged:
            yield merged
    if held is not None:
        yield [held]


async def _window(lane: FrontLane, holder: Holder, at: int, length: int, context: int) -> list[tuple[int, int]]:
    slot = await lane.take_slot(holder)
    completion = await lane.run(Kind.EXTENTS, at, length, slot=slot, context=context)
    try:
        if completion.status is not Status.OK or not completion.covered:
            raise job_failed(completion, "extents", at, length)
        return unpack_all(lane.views[slot][: completion.value], completion.covered)
    except ExtentsBroken as broken:
        raise RequestError(500, f"extents of {length} bytes at offset {at}: {broken}") from broken
    finally:
        lane.give_back(slot)


def render(found: list[Run], context: int) -> list[bytes]:
    """One JSON object for each run."""
    encode = msgspec.json.encode
    if context:
        return [
            encode(Change(start, length, bool(flags & DIRTY), bool(flags & ZERO))) for start, length, flags in found
        ]
    return [encode(Allocation(start, length, bool(flags & ZERO), bool(flags & HOLE))) for start, length, flags in found]
