"""Bytes from one worker to another: what the one has read into a slot, the other one writes from where it lies.

    source's worker ──READ──► slot ──WRITE──► target's worker       as many slots under way as the arena has
             └─ EXTENTS, ahead ──► ZERO ─────►                      a hole takes no slot, and is not read

Both lanes have one arena (mover/front/link.py, lanes_between): no byte is copied, or seen, by this process. What the
target is given stands in the image's order.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from mover.front.foresight import Foresight, Run
from mover.front.meter import Meter
from mover.front.ranges import Span
from mover.library.seam import CarrierError, SourceGone
from workers.lane.front_lane import FrontLane, InFlight
from workers.lane.lane_states import LaneLost
from workers.lane.protocol import Completion, Flag, Kind, Status

# Holes are asked for at most so far ahead.
WINDOW_MOST = 1 << 34
# Zeros cost no slot, so their pieces have bounds of their own.
PIECES_MOST = 64
ZEROS_MOST = 2
# How long what is under way may take to end when nobody wants it any more.
END_S = 10.0


class Onto(NamedTuple):
    """Where the bytes go: a lane, and what its jobs name. At most `zero_bytes` are zeroed by one job."""

    lane: FrontLane
    failed: Callable[[Completion], CarrierError]
    session: int = 0
    transfer: int = 0
    flags: Flag = Flag.NONE
    zero_bytes: int = 1 << 50

    def submit(self, kind: Kind, offset: int, length: int, slot: int = -1) -> InFlight:
        """A WRITE or ZERO."""
        names = {"transfer": self.transfer, "flags": self.flags, "context": self.session}
        return self.lane.submit(kind, offset, length, slot=slot, **names)


class Piece:
    """A run of bytes on its way: read into a slot, or zeros that nobody reads."""

    __slots__ = ("length", "offset", "read")

    def __init__(self, offset: int, length: int, read: InFlight | None) -> None:
        self.offset = offset
        self.length = length
        self.read = read

    @property
    def ready(self) -> bool:
        """Whether the target may have it."""
        return self.read is None or self.read.done.done()


class Haul:
    """The bytes of `span`, which stand at the same place in the source and the target.

    Of a source whose end nobody knows the span is the most that is taken; `end` is where it was met.
    """

    def __init__(
        self, source: FrontLane, span: Span, onto: Onto, moved: Callable[[int], None], meter: Meter | None = None
    ) -> None:
        self._source = source
        self._onto = onto
        self._moved = moved
        self._meter = meter
        self._planned = span.offset
        self.end = span.offset + span.length
        self._holder = source.slots.enter()
        assert source.image is not None
        self._unsized = source.image.unsized
        asks = source.image.has_extents
        self._foresight = Foresight(source, self._holder, span.offset, self.end, asks, WINDOW_MOST)
        self._pieces: deque[Piece] = deque()  # in order; the target has none of them yet
        self._writes: set[InFlight] = set()
        self._zeros = 0
        self._error: Exception | None = None
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Bring all of it. Raises CarrierError, LaneLost: the first failure.

        When this has ended, however it has, nothing is under way any more that the target could still be given.
        """
        try:
            while self._planned < self.end or self._pieces or self._writes:
                self._changed.clear()
                self._check()
                await self._plan()
                self._hand_on()
                if not self._may_go_on:
                    await self._changed.wait()
        finally:
            await self._end_all()

    def _check(self) -> None:
        """Before anything is waited for that only a target could give: a slot, when it has all of them."""
        if self._error is not None:
            raise self._error

    @property
    def _may_go_on(self) -> bool:
        """Whether there is something to be done at once."""
        return self._error is not None or bool(self._pieces and self._pieces[0].ready and self._zeros < ZEROS_MOST)

    def _wake(self, done: asyncio.Future[Completion]) -> None:
        self._changed.set()

    # -- reading ahead ---------------------------------------------------------------------------------------

    async def _plan(self) -> None:
        """Plan as much as there are slots for; wait only where nothing else is under way."""
        while self._planned < self.end and len(self._pieces) < PIECES_MOST:
            self._foresight.look_ahead(self._planned)
            run = self._foresight.run_at(self._planned)
            if run is None:
                if self._pieces or self._writes:
                    self._foresight.when_known(self._wake)
                    return
                await self._foresight.wait()
            elif run.zeros:
                self._plan_zeros(run)
            elif not await self._plan_read(run):
                return

    def _plan_zeros(self, run: Run) -> None:
        if self._source.writes_seen != run.writes:
            self._foresight.distrust(self._planned)  # somebody wrote to it since
            return
        length = min(run.end - self._planned, self._onto.zero_bytes)
        self._pieces.append(Piece(self._planned, length, None))
        self._planned += length

    async def _plan_read(self, run: Run) -> bool:
        """Read the next slot's worth; False if there is no slot."""
        source = self._source
        boundary = self._planned + source.slot_bytes - self._planned % source.slot_bytes
        length = min(boundary, run.end) - self._planned
        if self._meter is not None and self._meter.limited:
            await self._meter.ready(length)
        slot = source.slots.take_nowait(self._holder)
        if slot is None:
            if self._pieces or self._writes:
                return False
            await self._foresight.settle()  # its question may hold the only slot
            slot = await source.take_slot(self._holder)
        try:
            read = source.submit(Kind.READ, self._planned, length, slot=slot)
        except LaneLost:
            source.give_back(slot)
            raise
        read.done.add_done_callback(self._wake)
        self._pieces.append(Piece(self._planned, length, read))
        self._planned += length
        if self._meter is not None:
            self._meter.moved(length)
        return True

    # -- handing on ------------------------------------------------------------------------------------------

    def _hand_on(self) -> None:
        """Give the target what is read, in order."""
        pieces = self._pieces
        while pieces and pieces[0].ready and self._error is None:
            if pieces[0].read is None and self._zeros == ZEROS_MOST:
                return
            piece = pieces.popleft()
            if piece.read is None:
                self._zeros += 1
                self._submit(Kind.ZERO, piece)
            else:
                self._write(piece, piece.read)

    def _write(self, piece: Piece, read: InFlight) -> None:
        slot = read.job.slot
        completion = read.done.result()  # LaneLost is raised here
        if completion.status is not Status.OK:
            self._source.give_back(slot)
            raise SourceGone(f"the source cannot be read at offset {piece.offset}: {reason_of(completion)}")
        if self._unsized and completion.covered < piece.length:
            piece.length = completion.covered
            self._end_at(piece.offset + piece.length)
            if not piece.length:
                self._source.give_back(slot)
                return
        try:
            self._submit(Kind.WRITE, piece, slot)
        except LaneLost:
            self._source.give_back(slot)
            raise

    def _submit(self, kind: Kind, piece: Piece, slot: int = -1) -> None:
        in_flight = self._onto.submit(kind, piece.offset, piece.length, slot)
        self._writes.add(in_flight)
        in_flight.done.add_done_callback(lambda done: self._written(in_flight, done))

    def _written(self, in_flight: InFlight, done: asyncio.Future[Completion]) -> None:
        self._writes.discard(in_flight)
        self._zeros -= in_flight.job.slot < 0
        if (lost := done.exception()) is not None:
            self._fail(lost)
        else:
            self._onto.lane.give_back(in_flight.job.slot)
            if done.result().status is not Status.OK:
                self._fail(self._onto.failed(done.result()))
            else:
                self._moved(in_flight.job.length)
        self._changed.set()

    def _fail(self, error: BaseException) -> None:
        """The first error wins."""
        assert isinstance(error, Exception)
        self._error = self._error or error

    def _end_at(self, end: int) -> None:
        """The source has no more: what was to be read from there on is not."""
        self.end = self._planned = end
        self._drop_reads()

    def _drop_reads(self) -> None:
        for piece in self._pieces:
            if piece.read is not None:
                self._source.abandon(piece.read)
        self._pieces.clear()

    # -- the end ---------------------------------------------------------------------------------------------

    async def _end_all(self) -> None:
        """Reads are abandoned; of what the target has, the end is waited for: it could still be written."""
        self._drop_reads()
        self._foresight.forget_question()
        try:
            await self._end_writes()
        finally:
            self._source.slots.leave(self._holder)
            if self._meter is not None:
                self._meter.close()

    async def _end_writes(self) -> None:
        for in_flight in self._writes:
            if in_flight.job.kind is Kind.ZERO and not self._onto.session and self._onto.lane.lost is None:
                self._onto.lane.submit(Kind.CANCEL, in_flight.job.number)
        left = {in_flight.done for in_flight in self._writes}
        if left:
            await asyncio.wait(left, timeout=END_S)


def reason_of(completion: Completion) -> str:
    """Why a job failed, for people."""
    return os.strerror(completion.value) if completion.value in errno.errorcode else completion.status.name
