"""The front end's end of a lane: it owns the arena, submits jobs, and submits them again when a worker is replaced.

What is replayed stands in workers/lane/books.py; here are descriptors, futures and deadlines. When the worker dies,
the completions it had published are read to the end first; what is then still in the books is submitted to the
successor. The client never notices but for the time it takes.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Protocol

from workers.lane.arena import Arena
from workers.lane.attachment import CELLS, Attachment
from workers.lane.books import Books, Entry
from workers.lane.lane_states import STATES, LaneEvent, LaneLost, LaneState
from workers.lane.protocol import Completion, ImageFacts, Job, Kind
from workers.lane.slots import Holder
from workers.lane.stalls import STALLED_S, Guest, Stalls
from workers.lane.tally import Durations


class InFlight(Entry):
    """A submitted job and the future of its completion."""

    __slots__ = ("began_ns", "done")

    def __init__(self, job: Job, done: asyncio.Future[Completion]) -> None:
        super().__init__(job)
        self.done = done
        self.began_ns = time.monotonic_ns()


class SlotWaiter:
    """A request in the queue for a slot."""

    __slots__ = ("future", "holder")

    def __init__(self, holder: Holder, future: asyncio.Future[int]) -> None:
        self.holder = holder
        self.future = future

    def give(self, slot: int) -> bool:
        """Hand the slot over, unless the request was cancelled."""
        if self.future.done():
            return False
        self.future.set_result(slot)
        return True


class LaneCounts(Protocol):
    """Where a lane's waits are counted."""

    @property
    def slot(self) -> Durations:
        """Waits for a slot."""

    @property
    def job(self) -> Durations:
        """Jobs, from their submission to their completion."""

    def replayed(self, jobs: int) -> None:
        """So many jobs are submitted again."""


class FrontLane:
    """One lane; `on_closed(lane)` is called once when it is lost or closed.

    `users` are the requests that use it now; `used_s` is when the last one left (the loop's clock), `idle_most_s` how
    long it stays without one. All are kept by whoever hands lanes to requests.
    """

    def __init__(
        self,
        number: int,
        arena: Arena,
        replay_s: float,
        on_closed: Callable[[FrontLane], None],
        counts: LaneCounts | None = None,
    ) -> None:
        self.number = number
        self.slot_bytes = arena.slot_bytes
        self.slots = arena.slots
        self.views = arena.views
        self.replay_s = replay_s
        self.state = LaneState.OPENING
        self.image: ImageFacts | None = None
        self.replays = 0
        self.users = 0
        self.used_s = 0.0
        self.idle_most_s = 0.0
        self.lost: LaneLost | None = None
        self._on_closed = on_closed
        self._counts = counts
        self._loop = asyncio.get_running_loop()
        self._arena = arena
        arena.enter()
        self._books: Books[InFlight] = Books(self.slots, CELLS)
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._stalls = Stalls(self.slots)
        self._patrol: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._attachment: Attachment | None = None

    # -- jobs ------------------------------------------------------------------------------------------------

    def submit(
        self,
        kind: Kind,
        offset: int = 0,
        length: int = 0,
        *,
        slot: int = -1,
        transfer: int = 0,
        flags: int = 0,
        context: int = 0,
    ) -> InFlight:
        """Submit a job; its slot, if any, belongs to the worker until `done`. Raises LaneLost."""
        if self.lost is not None:
            raise self.lost
        job = self._books.job(kind, offset, length, slot, transfer, flags, context)
        in_flight = InFlight(job, self._loop.create_future())
        self._books.enter(in_flight, self._push)
        return in_flight

    async def run(self, kind: Kind, offset: int = 0, length: int = 0, **fields: int) -> Completion:
        """Submit a job and wait for its end; when cancelled, the job is abandoned. Raises LaneLost."""
        in_flight = self.submit(kind, offset, length, **fields)
        try:
            return await in_flight.done
        except asyncio.CancelledError:
            self.abandon(in_flight)
            raise

    def abandon(self, in_flight: InFlight) -> None:
        """Nobody waits for this job any more; its slot comes back when the worker is done with it."""
        in_flight.done.cancel()
        if self.lost is not None:
            return
        if in_flight in self._books:
            self._books.abandon(in_flight)
        else:
            self.give_back(in_flight.job.slot)

    def give_back(self, slot: int) -> None:
        """The request needs its slot no more. A closed lane's slots are nobody's."""
        if slot >= 0 and self.lost is None:
            self.slots.release(slot)

    @property
    def in_flight(self) -> int:
        """Jobs whose completion was not read yet."""
        return len(self._books)

    @property
    def writes_seen(self) -> int:
        """A number that changes with every write to the image that was confirmed through Mover, and with its worker.

        A successor counts from 0: its numbers must not be taken for those that its predecessor has shown.
        """
        return self._attachment.writes_seen if self._attachment else -1 - self.replays

    # -- slots -----------------------------------------------------------------------------------------------

    async def take_slot(self, holder: Holder) -> int:
        """A slot for the request `holder`, waiting for one if need be. Raises LaneLost."""
        slot = self.slots.take_nowait(holder)
        if slot is not None:
            return slot
        began_ns = time.monotonic_ns()
        waiter = SlotWaiter(holder, self._loop.create_future())
        self.slots.queue(waiter)
        while not waiter.future.done():
            try:
                await asyncio.wait_for(asyncio.shield(waiter.future), STALLED_S)
            except TimeoutError:
                if self.lost is not None:
                    self._withdraw(waiter)
                    raise self.lost from None
                self._stalls.look()
            except asyncio.CancelledError:
                self._withdraw(waiter)
                raise
        if self._counts is not None:
            self._counts.slot.since(began_ns)
        return waiter.future.result()

    def _withdraw(self, waiter: SlotWaiter) -> None:
        self.slots.withdraw(waiter)
        if waiter.future.done():
            self.give_back(waiter.future.result())
        waiter.future.cancel()

    def watch(self, guest: Guest) -> None:
        """A request's client may stall from now on: its slots are taken away if others need them."""
        self._stalls.watch(guest)
        if self._patrol is None and self.lost is None:
            self._patrol = self._loop.call_later(STALLED_S, self._on_patrol)

    def unwatch(self, guest: Guest) -> None:
        """It may stall no more."""
        self._stalls.unwatch(guest)

    def _on_patrol(self) -> None:
        self._stalls.look()
        self._patrol = self._loop.call_later(STALLED_S, self._on_patrol) if self._stalls else None

    # -- attachments -----------------------------------------------------------------------------------------

    async def opened(self) -> ImageFacts:
        """Wait until the lane was open once; what the worker knows of the image. Raises LaneLost."""
        if self.image is None:
            await asyncio.shield(self._opened)
        if self.lost is not None:
            raise self.lost
        assert self.image is not None
        return self.image

    def attach(self, sock: socket.socket, generation: int) -> None:
        """Make new rings and offer them to the worker at the other end of `sock`.

        The supervisor sends the socket only when the predecessor is dead and fenced.
        """
        if self._attachment is not None:
            self.on_worker_gone()  # its end was not seen yet: the supervisor's message came first
        if self.lost is not None:
            sock.close()  # what the predecessor had published last was broken
            return
        self._attachment = Attachment(self, sock, generation, self._arena.fd)

    def on_opened(self, image: ImageFacts) -> None:
        self.image = image
        self._move(LaneEvent.OPENED)
        if self._deadline is not None:
            self._deadline.cancel()
        if not self._opened.done():
            self._opened.set_result(None)
        again = self._books.reopen(self._push)
        if self._counts is not None:
            self._counts.replayed(again)

    def _push(self, job: Job) -> bool:
        return self.state is LaneState.OPEN and self._attachment is not None and self._attachment.push(job)

    def on_completions(self, completions: list[Completion]) -> None:
        now_ns = time.monotonic_ns()
        for completion in completions:
            in_flight = self._books.complete(completion)
            if self._counts is not None:
                self._counts.job.add(now_ns - in_flight.began_ns)
            if not in_flight.done.done():
                in_flight.done.set_result(completion)
        self._books.push_unsent(self._push)

    def on_worker_gone(self) -> None:
        was_open = self.state is LaneState.OPEN
        self._detach()
        if self.lost is not None:
            return  # what it had published last was broken
        self._move(LaneEvent.WORKER_GONE)
        if was_open:
            self.replays += 1
            self._deadline = self._loop.call_later(self.replay_s, self.close, "the image's worker did not come back")

    def _detach(self) -> None:
        if self._attachment is not None:
            attachment, self._attachment = self._attachment, None
            attachment.close()

    def close(self, reason: str, retry_after_s: float | None = None) -> None:
        """Close the lane; jobs that are left, and those who wait, get LaneLost."""
        if self.state is LaneState.CLOSED:
            return
        self._move(LaneEvent.CLOSE)
        self.lost = LaneLost(reason, retry_after_s)
        for timer in (self._deadline, self._patrol):
            if timer is not None:
                timer.cancel()
        self._detach()
        for in_flight in self._books.entries():
            if not in_flight.done.done():
                in_flight.done.set_exception(self.lost)
                in_flight.done.exception()  # whoever still waits sees it; nobody else needs to
        if not self._opened.done():
            self._opened.set_result(None)
        self._arena.leave()
        self._on_closed(self)

    def _move(self, event: LaneEvent) -> None:
        self.state = STATES[self.state, event]
