"""The extents of an image as JSON: asked for a window at a time, rendered as they come.

A window is as long as holds about RUNS_WANTED runs, by how dense the one before it was. So neither the worker nor this
process is busy with one for long, and 4 KiB GETs come in between.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence

from mover.front.dialect import Dialect
from mover.front.errors import RequestError, job_failed
from mover.front.ranges import Span
from workers.lane.extents_format import ALL_FLAGS, DIRTY, HOLE, ZERO, Extent, ExtentsBroken, unpack_all
from workers.lane.front_lane import FrontLane
from workers.lane.protocol import Kind, Status
from workers.lane.slots import Holder

# A list of 262,144 dirty runs takes 0.25 s by 1024, 0.5 s by 128; GETs of 4 KiB meanwhile take 8 and 2 times as long as
# alone (the 99th percentile, two cores).
RUNS_WANTED = 128
# Short, for an early first byte.
FIRST_BYTES = 16 * 1024 * 1024
LEAST_BYTES = 64 * 1024
# How much longer than the one before a window may be: what is dense may begin anywhere.
GROWTH = 4


async def windows(lane: FrontLane, holder: Holder, span: Span, context: int) -> AsyncIterator[list[Extent]]:
    """The extents (length in bytes, flags) of `span`, window by window. Raises RequestError, LaneLost.

    `context` is 0 for allocation, else the bitmap's number on the lane. An export without extents is all data.
    """
    at, end = span.offset, span.offset + span.length
    length = FIRST_BYTES
    while at < end:
        found, covered = await _window(lane, holder, at, min(length, end - at), context)
        yield found
        at += covered
        length = next_length(covered, len(found), length)


def next_length(covered: int, runs: int, length: int) -> int:
    """How many bytes the next window should have, after one of `length` of which `covered` were `runs` runs."""
    wanted = min(covered * RUNS_WANTED // runs, length * GROWTH)
    return max(LEAST_BYTES, wanted - wanted % LEAST_BYTES)


async def _window(lane: FrontLane, holder: Holder, at: int, length: int, context: int) -> tuple[list[Extent], int]:
    slot = await lane.take_slot(holder)
    completion = await lane.run(Kind.EXTENTS, at, length, slot=slot, context=context)
    try:
        if completion.status is not Status.OK or not completion.covered:
            raise job_failed(completion, "extents", at, length)
        return unpack_all(lane.views[slot][: completion.value], completion.covered), completion.covered
    except ExtentsBroken as broken:
        raise RequestError(500, f"extents of {length} bytes at offset {at}: {broken}") from broken
    finally:
        lane.give_back(slot)


def texts(dialect: Dialect, dirty: bool, all_dirty: bool = False) -> Sequence[bytes]:
    """The JSON of an extent by its flags, with places for start and length; what reads the same is one object.

    `all_dirty` is for `dirty` extents of an image without a bitmap.
    """
    known: dict[bytes, bytes] = {}
    found = []
    for flags in range(ALL_FLAGS + 1):
        keys = [("zero", flags & ZERO)]
        if dirty:
            keys.insert(0, ("dirty", flags & DIRTY or all_dirty))
        elif dialect.extents_have_hole:
            keys.append(("hole", flags & HOLE))
        pairs = ",".join(f'"{key}":{"true" if value else "false"}' for key, value in keys)
        text = f'{{"start":%d,"length":%d,{pairs}}}'.encode()
        found.append(known.setdefault(text, text))
    return found


class Renderer:
    """Makes one JSON object of each run; neighbours that read the same are one run, over windows' borders too.

    Formatting bytes takes 0.1 microseconds a run, encoding a struct five times that.
    """

    def __init__(self, start: int, texts: Sequence[bytes]) -> None:
        self._texts = texts
        # The last run, still growing: where it starts, its length, its text.
        self._start = start
        self._length = 0
        self._text = b""

    @property
    def end(self) -> int:
        """Up to where the image was rendered, or is about to be."""
        return self._start + self._length

    def render(self, window: Iterable[Extent]) -> list[bytes]:
        """The runs that are known to have ended."""
        texts, rows = self._texts, []
        start, length, text = self._start, self._length, self._text
        for more, flags in window:
            found = texts[flags]
            if found is text:
                length += more
                continue
            if length:
                rows.append(text % (start, length))
            start, length, text = start + length, more, found
        self._start, self._length, self._text = start, length, text
        return rows

    def finish(self) -> list[bytes]:
        """The last run, if there is one."""
        return [self._text % (self._start, self._length)] if self._length else []
