"""Each request's share of the bytes a second that its ticket, its image and the host may move (rates.py has the rules).

Where there is no limit, a body asks once a piece whether that is still so. A request that waits holds no tokens, and
its place in line goes with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import Protocol
from weakref import WeakValueDictionary

from config.settings import QosSettings
from mover.front.rates import SECOND_NS, Limits, Rates, key_of
from mover.serve.messages import Ticket

# A step is what the lowest rate moves in 20 ms: small, so that bytes come evenly, and a change is in force at once.
STEPS_PER_S = 50
STEP_LEAST, STEP_MOST = 4096, 1024 * 1024
# How soon a change is seen, or that another front end has left; and how often one says that it still waits.
POLL_NS = SECOND_NS // 100


class TicketsPort(Protocol):
    """The tickets that a front end knows; `metered` are the ids of those with a limit of their own."""

    @property
    def metered(self) -> Collection[str]: ...

    def get(self, ticket_id: str) -> Ticket | None:
        """The ticket in force under this id."""


class Meters:
    """All meters of one front end; `tickets` are those in force here."""

    def __init__(self, settings: QosSettings, rates: Rates, tickets: TicketsPort) -> None:
        self.rates = rates
        self._tickets = tickets
        self.retune(settings)
        # One of a ticket's requests asks at a time, the others stand in line behind it.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def retune(self, settings: QosSettings) -> None:
        """Other limits are in force, for requests under way, too."""
        self._settings = settings
        self._limits_all = bool(settings.host_bytes_s or settings.image_bytes_s or settings.ticket_bytes_s)

    @property
    def idle(self) -> bool:
        """Nothing is limited: what a small GET asks, for 0.1 microseconds."""
        return not (self._limits_all or self._tickets.metered)

    def meter(self, ticket: Ticket | None, export_key: str) -> Meter:
        """For one request; a library's bodies have no ticket."""
        return Meter(self, ticket, export_key)

    def limits(self, ticket: Ticket | None) -> Limits:
        """What is in force now; a ticket that was changed while requests use it counts as it is."""
        settings, own = self._settings, 0
        if ticket is not None:
            latest = self._tickets.get(ticket.id) or ticket
            own = settings.ticket_bytes_s if latest.bytes_s is None else latest.bytes_s
        return Limits(own, settings.image_bytes_s, settings.host_bytes_s)

    def requests(self, ticket: Ticket) -> tuple[str, int] | None:
        """The ticket's id, and how many requests it may have at once; None if there is no limit."""
        most = self._settings.ticket_requests if ticket.requests_most is None else ticket.requests_most
        return (ticket.id, most) if most else None

    def turn(self, name: str) -> asyncio.Lock:
        """The line of a ticket's requests, or of a library image's; it goes with the last one."""
        found = self._turns.get(name)
        if found is None:
            found = self._turns[name] = asyncio.Lock()
        return found


class Meter:
    """What one request may move. `bytes_ready` were taken, and have not been moved yet; below 0 it has moved more."""

    __slots__ = ("_key", "_meters", "_ticket", "_turn", "bytes_ready")

    def __init__(self, meters: Meters, ticket: Ticket | None, export_key: str) -> None:
        self._meters = meters
        self._ticket = ticket
        self._key = export_key
        self._turn: asyncio.Lock | None = None
        self.bytes_ready = 0

    @property
    def limited(self) -> bool:
        """Whether there is any limit now."""
        return not self._meters.idle and self._meters.limits(self._ticket).least > 0

    @property
    def step_bytes(self) -> int:
        """How much to move at a time."""
        return max(STEP_LEAST, min(STEP_MOST, self._meters.limits(self._ticket).least // STEPS_PER_S))

    def ready_nowait(self, wanted: int) -> bool:
        """Whether so many bytes may be moved at once; then they are ready."""
        limits = self._meters.limits(self._ticket)
        if self.bytes_ready >= wanted or not limits.least:
            return True
        # Who is in line came first, also if it is this request.
        return not self._line().locked() and not self._take(wanted, limits)

    async def ready(self, wanted: int) -> None:
        """Wait until so many bytes are ready, or there is no limit; behind the ticket's other requests."""
        async with self._line():
            while (limits := self._meters.limits(self._ticket)).least and self.bytes_ready < wanted:
                wait = self._take(wanted, limits)
                if wait:
                    await asyncio.sleep(min(wait, POLL_NS) / SECOND_NS)

    def _line(self) -> asyncio.Lock:
        if self._turn is None:
            self._turn = self._meters.turn(self._key if self._ticket is None else self._ticket.id)
        return self._turn

    def _take(self, wanted: int, limits: Limits) -> int:
        count = wanted - self.bytes_ready
        wait = self._meters.rates.take(time.monotonic_ns(), count, *self._keys(), limits)
        if not wait:
            self.bytes_ready = wanted
        return wait

    def _keys(self) -> tuple[int, int]:
        name = self._key if self._ticket is None else self._ticket.id
        return key_of("ticket", name), key_of("image", self._key)

    def moved(self, count: int) -> None:
        """So many bytes were moved."""
        self.bytes_ready = self.bytes_ready - count if self.limited else 0

    def close(self) -> None:
        """The request is over: what it did not move is somebody else's."""
        limits, count, self.bytes_ready = self._meters.limits(self._ticket), self.bytes_ready, 0
        if count > 0 and limits.least:
            self._meters.rates.give_back(time.monotonic_ns(), count, *self._keys(), limits)
