"""The body of a PUT: from the client into slots, from each full slot a WRITE, until the server confirmed them all.

A body in chunks has no length before its end; `span` is then the most that it may fill.

A slot's bytes stay where they are until its write is confirmed; if the worker dies, the lane submits it again.
"""

from __future__ import annotations

import asyncio
import time

from sanic import Request

from mover.front import sanic_seam
from mover.front.chunked_intake import ChunkedIntake
from mover.front.errors import ClientGone, RequestError, job_failed
from mover.front.intake import Intake
from mover.front.ranges import Span
from workers.lane.front_lane import FrontLane, InFlight, LaneLost
from workers.lane.protocol import Completion, Kind, Status

# A client that has not filled a slot in this time is slow.
SLOW_S = 1.0


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
        progress_s: float,
        session: int = 0,
    ) -> None:
        self._lane = lane
        self._request = request
        self._transfer = transfer
        self._flags = flags
        self._progress_s = progress_s
        self._session = session
        self._start = self._at = sanic_seam.noted(request).offset = span.offset
        self._end = span.offset + span.length
        self._chunked = sanic_seam.body_left(request) is None
        self._holder = lane.slots.enter()
        self._slot = -1
        self._room_bytes = 0
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
        return Span(self._start, end - self._start)

    async def run(self) -> int:
        """Receive and write it all; where it ended. Raises the first failure, or ClientGone."""
        try:
            await sanic_seam.send_continue(self._request)
            self._intake.begin()
            await self._receive()
            await self._confirm()
            return self._at
        finally:
            self._leave()

    async def _receive(self) -> None:
        while not self._intake.over and self._error is None:
            if self._intake.hungry:
                if self._at == self._end:
                    raise self.too_long()
                self._slot = await self._lane.take_slot(self._holder)
                if self._error is None:  # a write may have failed meanwhile: then no other one follows it
                    self._intake.give(self._room())
            else:
                await self._wait_for_change()
        if self._error is not None:
            raise self._error

    async def _wait_for_change(self) -> None:
        """Wait until a slot is needed or a write has failed. Raises ClientGone when nothing came for too long."""
        self._changed.clear()
        began_ns = time.monotonic_ns()
        try:
            async with asyncio.timeout(min(SLOW_S, self._progress_s)):
                await self._changed.wait()
        except TimeoutError:
            self._intake.relax()
            if time.monotonic() - self._intake.progressed_s > self._progress_s:
                raise ClientGone from None
        finally:
            sanic_seam.noted(self._request).account.client.since(began_ns)

    async def _confirm(self) -> None:
        while self._writes and self._error is None:
            self._changed.clear()
            await self._changed.wait()
        if self._error is not None:
            raise self._error

    def _room(self) -> memoryview:
        """The part of the taken slot that the next chunk fills: up to the image's next slot boundary."""
        boundary = self._at + self._lane.slot_bytes - self._at % self._lane.slot_bytes
        self._room_bytes = min(boundary, self._end) - self._at
        return self._lane.views[self._slot][: self._room_bytes]

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
        elif count:
            self._room_bytes = count
            self._submit()
        self._changed.set()

    def filled(self) -> memoryview | None:
        """Submit the full slot, and give the next one if there is one at once."""
        if not self._submit():
            return None
        slot = self._lane.slots.take_nowait(self._holder) if self._at < self._end else None
        if slot is None:
            self._changed.set()
            return None
        self._slot = slot
        return self._room()

    def _submit(self) -> bool:
        """The slot's bytes are to be written; False if there is nobody for it."""
        try:
            in_flight = self._lane.submit(
                Kind.WRITE,
                self._at,
                self._room_bytes,
                slot=self._slot,
                transfer=self._transfer,
                flags=self._flags,
                context=self._session,
            )
        except LaneLost as lost:
            self._fail(lost)
            return False
        self._slot = -1
        self._at += self._room_bytes
        self._writes.add(in_flight)
        in_flight.done.add_done_callback(lambda done: self._written(in_flight, done))
        return True

    def _written(self, in_flight: InFlight, done: asyncio.Future[Completion]) -> None:
        if in_flight not in self._writes:
            return
        self._writes.discard(in_flight)
        if (lost := done.exception()) is not None:
            assert isinstance(lost, LaneLost)
            self._fail(lost)
            return
        self._lane.give_back(in_flight.job.slot)
        completion = done.result()
        if completion.status is not Status.OK:
            self._fail(self.failed(completion, in_flight))
        if not self._writes:
            self._changed.set()

    def _fail(self, error: Exception) -> None:
        """The first error wins."""
        self._error = self._error or error
        self._changed.set()

    def _leave(self) -> None:
        self._left = self.moved
        if self._slot >= 0:
            self._lane.give_back(self._slot)
        writes, self._writes = self._writes, set()
        for in_flight in writes:
            self._lane.abandon(in_flight)
        self._lane.slots.leave(self._holder)
        if not self._intake.over:
            sanic_seam.close_after(self._request)
        self._intake.end()
