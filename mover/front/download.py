"""The body of a GET: from the lane's slots to the client, in order, with reads in flight ahead.

    next_offset ──► pieces: data (a READ in flight or done) and zeros ──► head is sent ──► sent

Of a large body the extents are asked a window at a time, just ahead; zeros are not read but sent from a slab.
What is known of a window is dropped when anything was written to the image through Mover meanwhile.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from mover.front.errors import job_failed
from mover.front.foresight import Foresight, Run
from mover.front.meter import Meter
from mover.front.outlet import Outlet
from mover.front.ranges import Span
from workers.lane.front_lane import FrontLane, InFlight
from workers.lane.protocol import Kind, Status

# After so many zeros without waiting, others of the process get their turn.
TURN_BYTES = 8 * 1024 * 1024
# Zeros cost no slot, so their pieces have a bound of their own.
MOST_PIECES = 64


class Piece:
    """A run of the body: data in flight, or zeros as they were when the write count was `writes`."""

    __slots__ = ("in_flight", "length", "offset", "writes")

    def __init__(self, offset: int, length: int, in_flight: InFlight | None, writes: int = 0) -> None:
        self.offset = offset
        self.length = length
        self.in_flight = in_flight
        self.writes = writes


class Download:
    """Sends `span` of the lane's image, or of a whole file's session, to `outlet`, after `head`.

    `began` once the client may have seen a byte, `sent` is the image's offset up to which it has them.
    """

    def __init__(
        self,
        lane: FrontLane,
        outlet: Outlet,
        span: Span,
        head: bytes,
        session: int = 0,
        meter: Meter | None = None,
    ) -> None:
        self._meter = meter
        self._lane = lane
        self._outlet = outlet
        self._head = head
        self._session = session
        self._start = span.offset
        self._end = span.offset + span.length
        self.sent = span.offset
        self._planned = span.offset
        self._pieces: deque[Piece] = deque()
        self.holder = lane.slots.enter()
        # While the client is waited for: since when, and the piece that it has not taken.
        self.waits_since_s = math.inf
        self._held_up: Piece | None = None
        self._surrendered = False
        self.began = False
        assert lane.image is not None
        # A small body is read as it is: to ask would cost as much as to read.
        asks = lane.image.has_extents and not session and span.length > 2 * lane.slot_bytes
        self._foresight = Foresight(lane, self.holder, span.offset, self._end, asks)

    @property
    def moved(self) -> Span:
        """What the client's socket has taken."""
        return Span(self._start, self.sent - self._start)

    async def run(self) -> None:
        """Send it all. Raises ClientGone, LaneLost or RequestError."""
        try:
            await self._outlet.begin()
            while self.sent < self._end:
                if not self._pieces:
                    await self._plan_first()
                self._plan_ahead()
                await self._send_piece(self._pieces.popleft())
            await self._send_head()
        finally:
            self._rewind()
            self._foresight.forget_question()
            self._lane.slots.leave(self.holder)
            if self._meter is not None:
                self._meter.close()

    async def _send_head(self) -> None:
        head, self._head = self._head, b""
        if head:
            self.began = True
            await self._outlet.send_all(head)

    # -- planning --------------------------------------------------------------------------------------------

    async def _plan_first(self) -> None:
        """Plan the next piece, waiting for knowledge and a slot as need be."""
        while (run := self._foresight.run_at(self._planned)) is None:
            await self._foresight.wait()
        if run.zeros:
            self._plan_zeros(run)
            return
        slot = self._lane.slots.take_nowait(self.holder)
        if slot is None:
            await self._foresight.settle()  # its question may hold the only slot that we may have
            slot = await self._lane.take_slot(self.holder)
        self._plan_read(run, slot)

    def _plan_ahead(self) -> None:
        """Plan as many pieces as the request's share of slots allows, without waiting."""
        while self._planned < self._end and len(self._pieces) < MOST_PIECES:
            self._foresight.look_ahead(self._planned)
            run = self._foresight.run_at(self._planned)
            if run is None:
                return
            if run.zeros:
                self._plan_zeros(run)
                continue
            slot = self._lane.slots.take_nowait(self.holder)
            if slot is None:
                return
            self._plan_read(run, slot)

    def _plan_zeros(self, run: Run) -> None:
        self._pieces.append(Piece(self._planned, run.end - self._planned, None, run.writes))
        self._planned = run.end

    def _plan_read(self, run: Run, slot: int) -> None:
        boundary = self._planned + self._lane.slot_bytes - self._planned % self._lane.slot_bytes
        length = min(boundary, run.end) - self._planned
        in_flight = self._lane.submit(Kind.READ, self._planned, length, slot=slot, context=self._session)
        self._pieces.append(Piece(self._planned, length, in_flight))
        self._planned += length

    def _rewind(self) -> None:
        """Give back all that was planned and not sent; it is planned again from `_sent`."""
        while self._pieces:
            piece = self._pieces.pop()
            if piece.in_flight is not None:
                self._lane.abandon(piece.in_flight)
        self._planned = self.sent

    # -- sending ---------------------------------------------------------------------------------------------

    async def _send_piece(self, piece: Piece) -> None:
        if piece.in_flight is None:
            await self._send_zeros(piece)
            return
        try:
            completion = await piece.in_flight.done
            if completion.status is not Status.OK:
                raise job_failed(completion, "read", piece.offset, piece.length)
            await self._send_slot(piece, self._lane.views[piece.in_flight.job.slot])
        finally:
            if not self._surrendered:
                self._lane.abandon(piece.in_flight)
            self._surrendered = False

    async def _send_slot(self, piece: Piece, view: memoryview) -> None:
        at = 0
        while at < piece.length:
            most = self._ready() or await self._wait_until_ready(piece)
            if not most:
                return
            rest = view[at : min(piece.length, at + most)]
            sent = self._took_head(self._outlet.send(self._head, rest) if self._head else self._outlet.send(rest))
            at += sent
            self._moved(sent)
            if sent < len(rest) and not await self._writable(piece):
                return

    def _moved(self, count: int) -> None:
        self.sent += count
        self._outlet.moved(count)
        if self._meter is not None:
            self._meter.moved(count)

    def _took_head(self, sent: int) -> int:
        """How much of `sent` was body: the head goes first."""
        self.began = self.began or sent > 0
        head = min(sent, len(self._head))
        self._head = self._head[head:]
        return sent - head

    async def _writable(self, piece: Piece) -> bool:
        """Wait for the client; False if others needed the slots meanwhile and this request gave them up."""
        with self._held(piece):
            await self._outlet.writable()
        return not self._surrendered

    @contextmanager
    def _held(self, piece: Piece) -> Iterator[None]:
        """While it waits: whoever needs its slots may have them."""
        self._held_up, self.waits_since_s = piece, time.monotonic()
        self._lane.watch(self)
        try:
            yield
        finally:
            self.waits_since_s = math.inf
            self._lane.unwatch(self)

    def _ready(self) -> int:
        """How many bytes may be sent now; 0 where a limit has to be waited for."""
        if self._meter is None or not self._meter.limited:
            return self._end
        return max(0, self._meter.bytes_ready)

    async def _wait_until_ready(self, piece: Piece) -> int:
        """The same, but waits for a step of them; 0 if others needed the slots meanwhile."""
        assert self._meter is not None
        with self._held(piece):
            await self._meter.ready(min(self._meter.step_bytes, self._end - self.sent))
        return 0 if self._surrendered else self._ready()

    def surrender(self) -> None:
        """Others need the slots, and the client does not read: what is in them is read again later."""
        if self._surrendered:
            return
        self._surrendered = True
        if self._held_up is not None and self._held_up.in_flight is not None:
            self._lane.abandon(self._held_up.in_flight)
        self._rewind()
        self._foresight.forget(self.sent)

    async def _send_zeros(self, piece: Piece) -> None:
        await self._send_head()
        left, turn = piece.length, 0
        while left:
            if self._lane.writes_seen != piece.writes:
                # Somebody wrote to the image since: what is left of the window is read.
                self._rewind()
                self._foresight.distrust(self.sent)
                return
            most = self._ready() or await self._wait_until_ready(piece)
            if not most:
                self._surrendered = False
                return
            sent = self._outlet.send_zeros(min(left, most))
            left, turn = left - sent, turn + sent
            self._moved(sent)
            if not sent and not await self._writable(piece):
                self._surrendered = False
                return
            if turn >= TURN_BYTES:
                turn = 0
                await asyncio.sleep(0)
