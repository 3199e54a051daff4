"""What a large GET knows of the zeros ahead of it, a window at a time.

Nothing is kept across requests, and each run carries the image's write count from before it was asked for: guests
and others write too. While one window is read, the next one is asked for.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

import msgspec

from config.log import facts
from workers.lane.extents_format import ZERO, Extent, ExtentsBroken, unpack_all
from workers.lane.front_lane import FrontLane, InFlight
from workers.lane.protocol import Completion, Kind, Status
from workers.lane.slots import Holder

log = logging.getLogger(__name__)

# Extents are asked for so many bytes at a time.
WINDOW_BYTES = 64 * 1024 * 1024
# How much longer than a window that was all zeros the next one may be.
GROWTH = 8
# Zeros shorter than this are cheaper read with their neighbours than sent apart.
LEAST_ZEROS_BYTES = 64 * 1024


class Run(msgspec.Struct, frozen=True):
    """Bytes up to `end` are zeros, or data; as they were when the image's write count was `writes`."""

    end: int
    zeros: bool
    writes: int


class Foresight:
    """The runs ahead of a reader that ends at `end`; with `asks` off, everything is data.

    `window_most` is for who leaves zeros behind in no time: up to so many bytes are asked at once where there is
    nothing else.
    """

    def __init__(self, lane: FrontLane, holder: Holder, start: int, end: int, asks: bool, window_most: int = 0) -> None:
        self._lane = lane
        self._holder = holder
        self._end = end
        self._asks = asks
        self._window = WINDOW_BYTES
        self._window_most = max(window_most, WINDOW_BYTES)
        self._runs: deque[Run] = deque()
        self._known = start
        self._question: InFlight | None = None
        self._writes = 0

    def run_at(self, offset: int) -> Run | None:
        """The run that begins or goes on at `offset`; None while it is not known."""
        while self._runs and self._runs[0].end <= offset:
            self._runs.popleft()
        return self._runs[0] if self._runs else None

    def look_ahead(self, offset: int) -> None:
        """Ask for the next window in time, and take the answer in when it is there; never waits."""
        if self._question is not None and self._question.done.done():
            self._take_answer()
        if self._question is None and self._known < self._end and self._known - offset <= WINDOW_BYTES // 2:
            slot = self._lane.slots.take_nowait(self._holder) if self._asks else -1
            if slot is not None:
                self._ask(slot)

    async def wait(self) -> None:
        """Wait until more is known. Raises LaneLost."""
        if self._question is None:
            self._ask(await self._lane.take_slot(self._holder) if self._asks else -1)
        await self.settle()

    def when_known(self, call: Callable[[asyncio.Future[Completion]], None]) -> None:
        """Call `call` when the question that was asked has its answer; `look_ahead` has asked it."""
        if self._question is not None:
            self._question.done.remove_done_callback(call)
            self._question.done.add_done_callback(call)

    async def settle(self) -> None:
        """Wait for the answer to the question that was asked, if one was."""
        if self._question is not None:
            await self._question.done
            self._take_answer()

    def distrust(self, offset: int) -> None:
        """Take everything known from `offset` on for data."""
        self.forget_question()
        self._runs.clear()
        self._runs.append(Run(max(self._known, offset), False, 0))

    def forget(self, offset: int) -> None:
        """Know nothing from `offset` on."""
        self.forget_question()
        self._runs.clear()
        self._known = offset

    def forget_question(self) -> None:
        """Do not wait for an answer any more."""
        if self._question is not None:
            self._lane.abandon(self._question)
            self._question = None

    def _ask(self, slot: int) -> None:
        if not self._asks:
            self._learn(self._end, False)
            return
        self._writes = self._lane.writes_seen
        stop = min(self._end, self._known + self._window)
        self._question = self._lane.submit(Kind.EXTENTS, self._known, stop - self._known, slot=slot)

    def _take_answer(self) -> None:
        question, self._question = self._question, None
        assert question is not None
        try:
            self._read_answer(question)
        finally:
            self._lane.abandon(question)

    def _read_answer(self, question: InFlight) -> None:
        completion, job = question.done.result(), question.job
        found: list[Extent] = []
        try:
            if completion.status is Status.OK:
                found = unpack_all(self._lane.views[job.slot][: completion.value], completion.covered)
        except ExtentsBroken as broken:
            log.warning("extents broken", extra=facts(offset=job.offset, reason=str(broken)))
        if not found:
            log.info("extents unknown, read as data", extra=facts(offset=job.offset, errno=completion.value))
            self._learn(job.offset + job.length, False)
        zeros = len(found) == 1 and bool(found[0][1] & ZERO)
        self._window = min(self._window * GROWTH, self._window_most) if zeros else WINDOW_BYTES
        for length, flags in found:
            self._learn(self._known + length, bool(flags & ZERO) and length >= LEAST_ZEROS_BYTES)

    def _learn(self, end: int, zeros: bool) -> None:
        if self._runs and self._runs[-1].zeros == zeros and self._runs[-1].writes == self._writes:
            self._runs.pop()
        self._runs.append(Run(end, zeros, self._writes))
        self._known = end
