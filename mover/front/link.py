"""A front end's link to the supervisor: tickets come in, lanes are opened and kept.

No request asks the supervisor anything but, on the first use of an export, for its lane.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import Protocol

import msgspec

from config.export import Export
from config.log import facts
from config.settings import FrontSettings
from mover.front.account import Account
from mover.front.questions import Questions
from mover.front.tickets import TicketShelf
from mover.front.usage import Guest
from mover.serve.messages import (
    VERSION,
    Activity,
    Answer,
    AskActivity,
    AskUses,
    Begin,
    CloseLane,
    DialectName,
    Drain,
    FrontEndHello,
    FrontEndReady,
    GiveBack,
    LaneRefused,
    LaneSocket,
    NewCertificates,
    OpenLane,
    Ping,
    Pong,
    Retune,
    Ticket,
    TicketAnswer,
    Tickets,
    TicketsApplied,
    ToFrontEnd,
)
from workers.lane.arena import Arena
from workers.lane.channel import Channel, ChannelBroken, ChannelClosed
from workers.lane.front_lane import FrontLane
from workers.lane.lane_states import LaneLost
from workers.lane.protocol import ImageFacts

log = logging.getLogger(__name__)

# A request that a lost lane failed holds it in a circle of exception, traceback and frame. That is a whole arena:
# it must not wait for the collector's own time, which may be never.
COLLECT_AFTER_S = 1.0
# A library image is used once in a while, and there are many: their lanes do not wait for the next use.
LIBRARY_IDLE_S = 2.0


class Host(Protocol):
    """The front end itself, as its link needs it."""

    def drain(self) -> None:
        """Accept no more, and end when what is under way has."""

    def retune(self, message: Retune) -> None:
        """Other settings are in force."""

    def renew(self, message: NewCertificates, fds: list[int]) -> None:
        """There are other certificates."""

    def connections(self) -> int:
        """How many clients are connected."""

    def waiting(self) -> int:
        """How many requests are in line."""


class Link:
    """Tickets, lanes by export, and the channel they come from.

    `ask` says whether the supervisor may find a ticket for an id that has none here.
    """

    def __init__(
        self,
        channel: Channel[ToFrontEnd],
        settings: FrontSettings,
        host: Host,
        ask: bool = False,
        account: Account | None = None,
    ) -> None:
        self.supervised = True
        self.tickets = TicketShelf(self._send, self._gone)
        self.questions = Questions(self._send)
        self._ask = ask
        self._channel = channel
        self._settings = settings
        self._host = host
        self._account = account or Account()
        self._loop = asyncio.get_running_loop()
        self._numbers = count(1)
        self._lanes: dict[str, FrontLane] = {}
        # Of tickets in use, by version: an export's key takes longer to make than a small GET's lane to find.
        self._keys: dict[int, str] = {}
        self._tickets_of: Counter[str] = Counter()  # by export's key, those with requests that are out of force, too
        self._by_number: dict[int, FrontLane] = {}
        self._looks: dict[int, asyncio.TimerHandle] = {}

    def begin(self) -> None:
        """Greet the supervisor and listen to it; what it has pushed already is in force when this returns."""
        self._send(FrontEndHello(VERSION, os.getpid()))
        self._loop.add_reader(self._channel.fileno(), self._on_message)
        self._on_message()

    def ready(self) -> None:
        """Tell the supervisor that the listeners answer."""
        self._send(FrontEndReady())

    # -- messages --------------------------------------------------------------------------------------------

    def _send(self, message: msgspec.Struct) -> None:
        if not self.supervised:
            return
        try:
            self._channel.send(message)
        except (ChannelClosed, ChannelBroken) as error:
            self._lose_supervisor(str(error))
        if self._channel.backlog:
            self._loop.add_writer(self._channel.fileno(), self._on_writable)

    def _on_writable(self) -> None:
        if self._channel.flush():
            self._loop.remove_writer(self._channel.fileno())

    def _on_message(self) -> None:
        try:
            while (received := self._channel.receive()) is not None:
                self._handle(*received)
        except (ChannelClosed, ChannelBroken) as error:
            self._lose_supervisor(str(error))

    def _lose_supervisor(self, reason: str) -> None:
        """Finish what is in flight, and leave: nobody would restart or watch us any more."""
        if self.supervised:
            log.warning("supervisor gone", extra=facts(reason=reason))
            self.supervised = False
            self._loop.remove_reader(self._channel.fileno())
            self._host.drain()

    def _handle(self, message: ToFrontEnd, fds: list[int]) -> None:
        match message:
            case Tickets():
                self._apply(message)
            case AskUses():
                self.tickets.tell(message.question, message.versions)
            case TicketAnswer():
                self.tickets.answered(message.id)
            case LaneSocket():
                self._attach(message, socket.socket(fileno=fds[0]))
            case LaneRefused():
                lane = self._by_number.get(message.lane)
                if lane is not None:
                    lane.close(message.reason, message.retry_after_s)
            case GiveBack():
                self._give_back(message.arena_bytes)
            case Answer():
                self.questions.collect(message)
            case Retune():
                self._settings = message.settings
                self._host.retune(message)
            case NewCertificates():
                self._host.renew(message, fds)
            case Ping():
                self._send(Pong())
            case AskActivity():
                self._send(self._activity(message.question))
            case Drain():
                self._host.drain()
            case Begin():
                raise ChannelBroken("a second Begin")

    def _apply(self, change: Tickets) -> None:
        self._tickets_of.update(ticket.export.key for ticket in change.installed)
        self.tickets.apply(change)
        self._send(TicketsApplied(change.number))

    def _gone(self, ticket: Ticket) -> None:
        """Nobody will come for its export any more, unless by another ticket: the lane's memory is for others."""
        key = ticket.export.key
        self._keys.pop(ticket.version, None)
        self._tickets_of[key] -= 1
        if self._tickets_of[key] > 0:
            return
        del self._tickets_of[key]
        lane = self._lanes.get(key)
        if lane is not None and not lane.users:
            lane.close("its last ticket is gone")

    # -- tickets ---------------------------------------------------------------------------------------------

    async def ticket(self, ticket_id: str) -> Ticket | None:
        """The ticket of this id; use it at once, in `lane`. Raises LaneLost when the supervisor does not answer."""
        ticket = self.tickets.get(ticket_id)
        if ticket is not None or not (self._ask and self.supervised):
            return ticket
        try:
            async with asyncio.timeout(self._settings.open_s):
                return await self.tickets.ask(ticket_id)
        except TimeoutError:
            raise LaneLost("the supervisor does not answer", 1.0) from None

    def in_force(self, ticket: Ticket) -> bool:
        """Whether its id still has a ticket: this one, or the one that replaced it."""
        return self.tickets.get(ticket.id) is not None

    def removed_dialect(self, ticket_id: str) -> DialectName | None:
        """The dialect of a ticket that was removed, as far as that is remembered."""
        return self.tickets.removed_dialect(ticket_id)

    def key(self, ticket: Ticket) -> str:
        """The key of the ticket's export."""
        key = self._keys.get(ticket.version)
        if key is None:
            key = self._keys[ticket.version] = ticket.export.key
        return key

    # -- lanes -----------------------------------------------------------------------------------------------

    async def lane(self, ticket: Ticket, guest: Guest) -> tuple[FrontLane, ImageFacts]:
        """An open lane to the worker of the ticket's export; lane and ticket are in use until `leave`.

        Raises LaneLost; then neither is.
        """
        self.tickets.enter(ticket, guest)
        try:
            return await self._lane(self.key(ticket), ticket.export)
        except BaseException:
            self.tickets.leave(ticket, guest)
            raise

    def leave(self, lane: FrontLane, ticket: Ticket, guest: Guest) -> None:
        """A request is done with both."""
        self.leave_lane(lane)
        self.tickets.leave(ticket, guest)

    async def lane_to(self, export: Export) -> tuple[FrontLane, ImageFacts]:
        """An open lane to the worker of an export that no ticket names; in use until `leave_lane`. Raises LaneLost."""
        return await self._lane(export.key, export)

    async def _lane(self, key: str, export: Export) -> tuple[FrontLane, ImageFacts]:
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._open(key, export)
        lane.users += 1
        if lane.image is not None and lane.lost is None:
            return lane, lane.image
        began_ns = time.monotonic_ns()
        try:
            return lane, await self.open_in_time(lane)
        except BaseException:
            self.leave_lane(lane)
            raise
        finally:
            self._account.lane.since(began_ns)

    def leave_lane(self, lane: FrontLane) -> None:
        """A request is done with it; without any, it is closed after a while."""
        lane.users -= 1
        lane.used_s = self._loop.time()

    def _open(self, key: str, export: Export) -> FrontLane:
        if not self.supervised:
            raise LaneLost("the service is going down")
        settings = self._settings
        number = next(self._numbers)
        arena = Arena(number, settings.slots, settings.slot_bytes, settings.request_slots)
        lane = self._lanes[key] = self._new_lane(number, key, arena)
        lane.idle_most_s = LIBRARY_IDLE_S if export.of_library else settings.lane_idle_s
        self._look_later(lane.idle_most_s, lane)
        self._send(OpenLane(number, export, settings.slots * settings.slot_bytes))
        return lane

    def _new_lane(self, number: int, key: str, arena: Arena) -> FrontLane:
        on_closed = partial(self._closed, key)
        lane = self._by_number[number] = FrontLane(number, arena, self._settings.replay_s, on_closed, self._account)
        return lane

    @asynccontextmanager
    async def lanes_between(self, source: Export, target: Export) -> AsyncIterator[tuple[FrontLane, FrontLane]]:
        """Two lanes, for one user, on one arena: what a worker reads, the other one writes from where it lies.

        They are to be opened, by `open_in_time`, and closed when the user is done with them, whatever is under way.
        Raises LaneLost.
        """
        if not self.supervised:
            raise LaneLost("the service is going down")
        settings = self._settings
        numbers = next(self._numbers), next(self._numbers)
        arena = Arena(numbers[0], settings.slots, settings.slot_bytes, settings.slots)
        lanes = self._new_lane(numbers[0], source.key, arena), self._new_lane(numbers[1], target.key, arena)
        try:
            for number, export in zip(numbers, (source, target), strict=True):
                self._send(OpenLane(number, export, settings.slots * settings.slot_bytes // 2))  # half of it each
            yield lanes
        finally:
            for lane in lanes:
                lane.close("its user is done")

    async def open_in_time(self, lane: FrontLane) -> ImageFacts:
        """Wait until the lane is open. Raises LaneLost."""
        try:
            async with asyncio.timeout(self._settings.open_s):
                return await lane.opened()
        except TimeoutError:
            raise LaneLost(f"the image's worker did not answer within {self._settings.open_s:g} s", 1.0) from None

    def _attach(self, message: LaneSocket, sock: socket.socket) -> None:
        lane = self._by_number.get(message.lane)
        if lane is None:
            sock.close()
            return
        log.debug("lane attached", extra=facts(lane=message.lane, generation=message.generation))
        lane.attach(sock, message.generation)

    def _look_later(self, seconds: float, lane: FrontLane) -> None:
        # Not in the name of the request that opened it.
        looks = self._loop.call_later(seconds, self._look_whether_idle, lane, context=contextvars.Context())
        self._looks[lane.number] = looks

    def _look_whether_idle(self, lane: FrontLane) -> None:
        """Close a lane that nobody has used for long; look again later at one that is used."""
        if lane.lost is not None:
            return
        left = lane.idle_most_s - (0 if lane.users else self._loop.time() - lane.used_s)
        if left > 0:
            self._look_later(left, lane)
        else:
            lane.close("idle")

    def _give_back(self, arena_bytes: int) -> None:
        """Close lanes until so much memory is free, those first that have been idle for longest."""
        idle = sorted((lane for lane in self._lanes.values() if not lane.users), key=lambda lane: lane.used_s)
        for lane in idle:
            if arena_bytes <= 0:
                break
            arena_bytes -= len(lane.slots) * lane.slot_bytes
            lane.close("idle, and another one needs its memory")

    def _closed(self, key: str, lane: FrontLane) -> None:
        assert lane.lost is not None
        closing = facts(lane=lane.number, reason=lane.lost.reason, slots_used=lane.slots.used)
        log.info("lane closed", extra=closing)
        if self._lanes.get(key) is lane:
            del self._lanes[key]
        del self._by_number[lane.number]
        looks = self._looks.pop(lane.number, None)
        if looks is not None:
            looks.cancel()  # or it would hold the lane, and its arena
        self._send(CloseLane(lane.number))
        self._loop.call_later(COLLECT_AFTER_S, gc.collect)

    def close_lanes(self) -> None:
        """The process ends."""
        for lane in list(self._by_number.values()):
            lane.close("the service is going down")

    def _activity(self, question: int) -> Activity:
        lanes = list(self._lanes.values())
        return Activity(
            question=question,
            connections=self._host.connections(),
            in_flight=len(self._account.active),
            waiting=self._host.waiting(),
            lanes=len(lanes),
            slots=sum(len(lane.slots) for lane in lanes),
            slots_used=sum(lane.slots.used for lane in lanes),
            uses=self._account.uses(),
        )
