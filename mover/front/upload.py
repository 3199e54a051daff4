"""The body of a PUT: from the client into slots, from each full slot a WRITE, until the server confirmed them all.

A body in chunks has no length before its end; `span` is then the most that it may fill.

A slot's bytes stay where they are until its write is confirmed; if the worker dies, the lane submits it again.

A client that stalls while others need slots loses its own: what has come is written, and it goes on aside, filling a
small room that is no slot. Full, that is copied into a slot and written; whoever filled it fast has slots again.
"""

from __future__ import annotations

import asyncio
import math
import time

from sanic import Request

from mover.front import sanic_bodies, sanic_seam
from mover.front.chunked_intake import ChunkedIntake
from mover.front.errors import ClientGone, RequestError, job_failed
from mover.front.intake import Intake
from mover.front.pace import Pace
from mover.front.ranges import Span
from workers.lane.front_lane import FrontLane, InFlight
from workers.lane.lane_states import LaneLost
from workers.lane.protocol import Completion, Kind, Status

# A client that has not filled a room in this time is slow.
SLOW_S = 1.0
# Of a private room: small enough for each writer of an image to have one, large enough for a write.
ASIDE_BYTES = 64 * 1024


class Upload:
    """Writes a request's body to `span` of the image, or of a whole file's session, for the ledger's `transfer`."""

    # Nothing is answered before all of the body is confirmed.
    began = False

    def __init__(
        self,
        lane: FrontLane,
        request: Request,
        span: Span,
        transfer: int,
        flags: int,
        pace: Pace,
        session: int = 0,
    ) -> None:
        self._lane = lane
        self._request = request
        self._transfer = transfer
        self._flags = flags
        self._session = session
        self._pace = pace
        self._meter = pace.meter
        self._start = self._at = sanic_seam.noted(request).offset = span.offset
        self._end = self._failed_at = span.offset + span.length
        self._chunked = sanic_bodies.body_left(request) is None
        self.holder = lane.slots.enter()
        self._slot = -1
        self._room_bytes = 0
        self._aside: memoryview | None = None
        self._aside_full = False
        self._aside_since_s = 0.0
        self._writes: set[InFlight] = set()
        self._left: Span | None = None  # what was confirmed without a gap when the request left
        self._error: Exception | None = None
        self._changed = asyncio.Event()
        self._intake = ChunkedIntake(request, self) if self._chunked else Intake(request, span.length, self)

    @property
    def moved(self) -> Span:
        """What is confirmed without a gap."""
        if self._left is not None:
            return self._left
        end = min((write.job.offset for write in self._writes), default=self._at)
        return Span(self._start, min(end, self._failed_at) - self._start)

    async def run(self) -> int:
        """Receive and write it all; where it ended. Raises the first failure, or ClientGone."""
        try:
            await sanic_bodies.send_continue(self._request)
            self._intake.begin()
            self._lane.watch(self)
            await self._receive()
            await self._confirm()
            return self._at
        finally:
            self._leave()

    async def _receive(self) -> None:
        while (not self._intake.over or self._aside_full) and self._error is None:
            if self._intake.hungry or self._aside_full:
                if self._at == self._end and not self._aside_full:
                    raise self.too_long()
                if not self._aside_full and self._meter is not None and self._meter.limited:
                    await self._meter.ready(self._length(self._most()))
                self._slot = await self._lane.take_slot(self.holder)
                if self._error is None:  # a write may have failed meanwhile: then no other one follows it
                    room = self._use_slot()
                    if room is not None:
                        self._intake.give(room)
            else:
                await self._wait_for_change()
        if self._error is not None:
            raise self._error

    async def _wait_for_change(self) -> None:
        """Wait until a slot is needed or a write has failed. Raises ClientGone for a client that is too slow."""
        self._changed.clear()
        taken, began_ns = self._intake.taken, time.monotonic_ns()
        try:
            async with asyncio.timeout(min(SLOW_S, self._pace.patience_s)):
                await self._changed.wait()
        except TimeoutError:
            self._intake.relax()
        waited_ns = time.monotonic_ns() - began_ns
        sanic_seam.noted(self._request).account.client.add(waited_ns)
        self._pace.waited(waited_ns / 1e9)
        self._pace.moved(self._intake.taken - taken)
        if self._pace.left_s <= 0:
            raise ClientGone(slow=True)

    async def _confirm(self) -> None:
        while self._writes and self._error is None:
            self._changed.clear()
            await self._changed.wait()
        if self._error is not None:
            raise self._error

    # -- rooms -----------------------------------------------------------------------------------------------

    def too_long(self) -> Exception:
        """What a body in chunks meets that goes on beyond the span."""
        return RequestError(413, f"the body is longer than {self._end} bytes", closes=True)

    def failed(self, completion: Completion, in_flight: InFlight) -> Exception:
        """What a write's failure means to the client."""
        return job_failed(completion, "write", in_flight.job.offset, in_flight.job.length)

    def hungers(self) -> None:
        """A body in chunks has data, and no room for it."""
        self._changed.set()

    def ended(self, count: int) -> None:
        """A body in chunks is over, or broken: what the last slot has of it is written."""
        if self._intake.fault is not None:
            self._fail(self._intake.fault)
        elif count and self._slot < 0:
            self._room_bytes, self._aside_full = count, True
        elif count:
            self._write(count)
        self._changed.set()

    def filled(self) -> memoryview | None:
        """A room is full: write what is in it, and give the next one if there is one at once."""
        if self._aside is not None:
            self._aside_full = True
        else:
            self._write(self._room_bytes)
        room = self._next_room()
        if room is None:
            self._changed.set()
        return room

    def _next_room(self) -> memoryview | None:
        """A room if a slot can be had at once."""
        if self._error is not None or (self._at == self._end and not self._aside_full):
            return None
        if (
            self._meter is not None
            and not self._aside_full
            and not self._meter.ready_nowait(self._length(self._most()))
        ):
            return None
        slot = self._lane.slots.take_nowait(self.holder)
        if slot is None:
            return None
        self._slot = slot
        return self._use_slot()

    def _most(self) -> int:
        """Of one room: a slot, or about what a limit lets through in a step."""
        most = self._lane.slot_bytes
        while most > ASIDE_BYTES and self._meter is not None and self._meter.limited and most > self._meter.step_bytes:
            most //= 2
        return most

    def _use_slot(self) -> memoryview | None:
        """What is to be done with the slot that was taken: make it the room, or write there what came aside."""
        if not self._aside_full:
            self._room_bytes = self._length(self._most())
            return self._lane.views[self._slot][: self._room_bytes]
        assert self._aside is not None
        self._aside_full = False
        self._lane.views[self._slot][: self._room_bytes] = self._aside[: self._room_bytes]
        self._write(self._room_bytes)
        if self._at == self._end or self._intake.over or self._error is not None:
            return None
        if time.monotonic() - self._aside_since_s > SLOW_S:
            return self._room_aside()
        self._aside = None
        return self._next_room()

    def _room_aside(self) -> memoryview:
        if self._aside is None:
            self._aside = memoryview(bytearray(ASIDE_BYTES))
        self._aside_since_s = time.monotonic()
        self._room_bytes = self._length(ASIDE_BYTES)
        return self._aside[: self._room_bytes]

    def _length(self, most: int) -> int:
        """Of the next chunk: up to the image's next multiple of `most`."""
        return min(self._at + most - self._at % most, self._end) - self._at

    @property
    def waits_since_s(self) -> float:
        """When the client sent something last; infinity while it is not waited for."""
        return self._intake.progressed_s if self._intake.has_room else math.inf

    def surrender(self) -> None:
        """Others need the slot, and the client does not send."""
        if self._slot < 0 or not self._intake.has_room:
            return
        if self._intake.filled:
            self._write(self._intake.filled)
        else:
            self._give_slot_back()
        self._intake.relax()
        self._intake.give(self._room_aside())  # also after an error: the old room is the worker's now

    # -- writes ----------------------------------------------------------------------------------------------

    def _write(self, length: int) -> None:
        """Submit a write of the slot's first bytes."""
        try:
            in_flight = self._lane.submit(
                Kind.WRITE,
                self._at,
                length,
                slot=self._slot,
                transfer=self._transfer,
                flags=self._flags,
                context=self._session,
            )
        except LaneLost as lost:
            self._fail(lost)
            return
        self._slot = -1
        self._at += length
        if self._meter is not None:
            self._meter.moved(length)
        self._writes.add(in_flight)
        in_flight.done.add_done_callback(lambda done: self._written(in_flight, done))

    def _written(self, in_flight: InFlight, done: asyncio.Future[Completion]) -> None:
        if in_flight not in self._writes:
            return
        self._writes.discard(in_flight)
        if (lost := done.exception()) is not None:
            assert isinstance(lost, LaneLost)
            self._failed_at = min(self._failed_at, in_flight.job.offset)
            self._fail(lost)
            return
        self._lane.give_back(in_flight.job.slot)
        completion = done.result()
        if completion.status is not Status.OK:
            self._failed_at = min(self._failed_at, in_flight.job.offset)
            self._fail(self.failed(completion, in_flight))
        if not self._writes:
            self._changed.set()

    def _fail(self, error: Exception) -> None:
        """The first error wins."""
        self._error = self._error or error
        self._changed.set()

    def _give_slot_back(self) -> None:
        slot, self._slot = self._slot, -1
        if slot >= 0:
            self._lane.give_back(slot)

    def _leave(self) -> None:
        self._left = self.moved
        self._lane.unwatch(self)
        self._give_slot_back()
        writes, self._writes = self._writes, set()
        for in_flight in writes:
            self._lane.abandon(in_flight)
        self._lane.slots.leave(self.holder)
        if self._meter is not None:
            self._meter.close()
        if not self._intake.over:
            sanic_seam.close_after(self._request)
        self._intake.end()
