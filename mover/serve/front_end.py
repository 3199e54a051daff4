"""One front end, from its start to its end; its successor is another one with the same number."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Protocol

from config.log import facts
from config.settings import Settings
from mover.serve.errors import Misbehaved
from mover.serve.lanes import FrontEndPort
from mover.serve.listeners import Listeners
from mover.serve.messages import (
    VERSION,
    About,
    Activity,
    Ask,
    AskActivity,
    AskTicket,
    Begin,
    CloseLane,
    Drain,
    FromFrontEnd,
    FrontEndHello,
    FrontEndReady,
    Grant,
    Inquire,
    OpenLane,
    Ping,
    Revoke,
    TicketFirstUsed,
    TicketReleased,
    Tickets,
    TicketsApplied,
    TicketsUsed,
    TicketUse,
    ToFrontEnd,
)
from mover.serve.processes import Child
from mover.serve.programs import Programs
from mover.serve.states import FRONT_END_STATES, FrontEndEvent, FrontEndState
from mover.serve.tickets import TicketBook

log = logging.getLogger(__name__)

# Importing Sanic takes a third of a second alone, several times that while a host boots.
READY_S = 30.0
# A ticket change is a dictionary's update there: one that takes so long is stuck.
APPLY_S = 10.0


class Desk(Protocol):
    """What front ends turn to; `seat` is whoever looks after the front end itself."""

    def open_lane(self, front_end: FrontEndPort, message: OpenLane) -> None:
        """It needs a lane."""

    def close_lane(self, front_end: FrontEndPort, number: int) -> None:
        """It needs the lane no more."""

    def close_lanes(self, front_end: FrontEndPort) -> None:
        """It is dead."""

    def tickets_used(self, uses: Sequence[TicketUse]) -> None:
        """Requests there use these tickets, or did just now."""

    def ticket_first_used(self, version: int, client: str) -> None:
        """The first request there with this ticket has come."""

    def ask_ticket(self, front_end: FrontEndPort, ticket_id: str) -> None:
        """It has no ticket of this id, and a client wants it."""

    def order(self, front_end: FrontEndPort, message: Grant | Revoke | Inquire) -> None:
        """It gives a client of the library a ticket, takes one away, or asks for some."""

    def ask(self, front_end: FrontEndPort, question: int, about: About) -> None:
        """It wants to know something of the whole house."""


class Seat(Protocol):
    """Who looks after a front end: its news."""

    def front_end_ready(self, front_end: FrontEnd) -> None:
        """It serves."""

    def front_end_moved_on(self) -> None:
        """It has applied ticket changes, or uses a ticket no more."""

    def front_end_answered(self, front_end: FrontEnd, answer: TicketsUsed) -> None:
        """It has answered AskUses, or a part of it."""

    def front_end_ended(self, front_end: FrontEnd, status: int) -> None:
        """It is gone."""


@dataclass(frozen=True)
class Inheritance:
    """What a front end is given: the listening sockets, and the descriptors that Begin names after them."""

    listeners: Listeners
    fds: Sequence[int]


class FrontEnd:
    """A running front end. Raises OSError when it cannot be started."""

    def __init__(
        self,
        number: int,
        programs: Programs,
        settings: Settings,
        given: Inheritance,
        tickets: TicketBook,
        desk: Desk,
        seat: Seat,
    ) -> None:
        self._number = number
        self._tickets = tickets
        self._desk = desk
        self._seat = seat
        self._silence_s = settings.supervisor.silence_s
        self._says_ready = False
        self._draining = False
        self._questions = count(1)
        self._answers: dict[int, asyncio.Future[Activity | None]] = {}
        self.state = FrontEndState.STARTED
        self.mixed_versions: str | None = None
        self._child: Child[FromFrontEnd] = Child(
            programs.front_end, programs.environment, FromFrontEnd, self._on_message, self._on_end
        )
        self._ready_deadline = self._child.within(READY_S, f"not ready within {READY_S:g} s")
        ask = bool(settings.serve.transfer_dir)
        begin = Begin(
            VERSION,
            number,
            settings.front,
            tcp=True,
            unix_socket=given.listeners.unix_path,
            log=settings.log,
            ask=ask,
            limits=settings.limits,
            qos=settings.qos,
            tls=settings.tls,
            library=settings.library,
            state_dir=settings.serve.state_dir,
            metrics_on_tcp=given.listeners.shows_metrics(settings.serve.metrics),
            stores=settings.store,
            allow=settings.allow,
        )
        self._child.send(begin, [*given.listeners.fds, *given.fds])
        pieces = tickets.join(self)
        self._whole_set = pieces[-1].number
        for piece in pieces:
            self._child.send(piece)

    @property
    def number(self) -> int:
        """Which one it is, from 1."""
        return self._number

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def send(self, message: ToFrontEnd, fds: Sequence[int] = ()) -> None:
        """Send it a message with duplicates of `fds`; nothing happens if it is gone."""
        self._child.send(message, fds)

    def push(self, change: Tickets) -> None:
        """Send it a change of the tickets, to be applied within a deadline."""
        self._child.send(change)
        self._child.later(APPLY_S, lambda: self._check_applied(change.number))

    def drain(self, deadline_s: float) -> None:
        """Ask it to stop accepting, finish within the deadline and exit."""
        self._ready_deadline.cancel()
        self._draining = True
        self._child.send(Drain(deadline_s))

    def kill(self, why: str = "") -> None:
        """End it at once."""
        self._child.kill(why)

    async def activity(self) -> Activity | None:
        """What is under way there; None if it ends before it answers."""
        question = next(self._questions)
        answer: asyncio.Future[Activity | None] = asyncio.get_running_loop().create_future()
        self._answers[question] = answer
        self._child.send(AskActivity(question))
        try:
            return await answer
        finally:
            self._answers.pop(question, None)

    def _answer(self, question: int, activity: Activity | None) -> None:
        answer = self._answers.get(question)
        if answer is not None and not answer.done():
            answer.set_result(activity)

    def _on_message(self, message: FromFrontEnd, fds: list[int]) -> None:
        if self.state is FrontEndState.STARTED and not isinstance(message, FrontEndHello):
            raise Misbehaved("it spoke before it said hello")
        if isinstance(message, FrontEndHello):
            self._on_hello(message)
        elif isinstance(message, FrontEndReady):
            self._says_ready = True
            self._ready_if_complete()
        elif isinstance(message, TicketsApplied):
            self._on_applied(message.number)
        elif isinstance(message, TicketReleased):
            self._on_released(message.version)
        elif isinstance(message, TicketsUsed):
            self._on_used(message)
        elif isinstance(message, TicketFirstUsed):
            self._desk.ticket_first_used(message.version, message.client)
        elif isinstance(message, AskTicket):
            self._desk.ask_ticket(self, message.id)
        elif isinstance(message, Grant | Revoke | Inquire):
            self._desk.order(self, message)
        elif isinstance(message, OpenLane):
            self._desk.open_lane(self, message)
        elif isinstance(message, CloseLane):
            self._desk.close_lane(self, message.lane)
        elif isinstance(message, Ask):
            self._desk.ask(self, message.question, message.about)
        elif isinstance(message, Activity):
            self._answer(message.question, message)

    def _on_hello(self, message: FrontEndHello) -> None:
        if self.state is not FrontEndState.STARTED:
            raise Misbehaved("it said hello twice")
        if message.version != VERSION:
            self.mixed_versions = f"the front end speaks version {message.version}, the supervisor version {VERSION}"
            raise Misbehaved(self.mixed_versions)
        self._move(FrontEndEvent.HELLO)
        self._child.keep_asking(Ping(), self._silence_s)

    def _on_applied(self, number: int) -> None:
        if not self._tickets.applied(self, number):
            raise Misbehaved(f"it says that it applied change {number}, which cannot be")
        self._ready_if_complete()
        self._seat.front_end_moved_on()

    def _on_released(self, version: int) -> None:
        if not self._tickets.released(self, version):
            raise Misbehaved(f"it says that it released ticket version {version}, which cannot be")
        self._seat.front_end_moved_on()

    def _on_used(self, message: TicketsUsed) -> None:
        self._desk.tickets_used(message.uses)
        if message.question:
            self._seat.front_end_answered(self, message)

    def _ready_if_complete(self) -> None:
        """Ready is what it says of its listeners and what its acknowledgements say of the tickets."""
        complete = self._says_ready and self._tickets.has_applied(self, self._whole_set)
        if complete and self.state is FrontEndState.GREETED:
            self._ready_deadline.cancel()
            self._move(FrontEndEvent.READY)
            self._seat.front_end_ready(self)

    def _check_applied(self, number: int) -> None:
        if not self._tickets.has_applied(self, number) and not self._draining:
            self.kill(f"ticket change {number} is not in force after {APPLY_S:g} s")

    def _on_end(self, status: int) -> None:
        self._move(FrontEndEvent.END)
        for question in list(self._answers):
            self._answer(question, None)
        self._tickets.leave(self)
        self._desk.close_lanes(self)
        self._seat.front_end_ended(self, status)

    def _move(self, event: FrontEndEvent) -> None:
        old, self.state = self.state, FRONT_END_STATES[self.state, event]
        log.debug("front end's state", extra=facts(front_end=self.number, old=old.name, new=self.state.name))
