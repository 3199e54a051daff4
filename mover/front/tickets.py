"""The tickets in force at this front end, and the requests that use them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from hashlib import blake2b

import msgspec

from mover.front.usage import Guest, Usage
from mover.serve.messages import (
    AskTicket,
    DialectName,
    Ticket,
    TicketFirstUsed,
    TicketReleased,
    Tickets,
    TicketsUsed,
    TicketUse,
)

# Often enough for idle times of seconds, and seldom enough to cost nothing.
USED_S = 1.0
# Of so many removed tickets the dialect is remembered, in which their clients are told that they are gone.
REMEMBERED = 1024
# What one message may hold: a use takes 50 bytes at most, a run 20, a packet 128 KiB.
USES_MOST = 256
RUNS_MOST = 4096
# Tickets are found by a hash under a key that nobody outside knows: how long it takes says nothing about how much of
# an id was right. It costs 0.8 microseconds, a hundredth of a small GET.
KEY = os.urandom(32)


def _hashed(ticket_id: str) -> bytes:
    return blake2b(ticket_id.encode(), key=KEY, digest_size=16).digest()


class TicketShelf:
    """Tickets by id. It tells the supervisor which ones are used, and when one that was removed no longer is.

    A request takes its ticket, and is then between `enter` and `leave` for as long as it uses it. Nothing may be
    awaited between taking and entering: a ticket that was removed meanwhile would be used once more.
    """

    def __init__(self, send: Callable[[msgspec.Struct], None], gone: Callable[[Ticket], None]) -> None:
        """`send` tells the supervisor; `gone` is called when a ticket is out of force and without requests."""
        self._send = send
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._tickets: dict[bytes, Ticket] = {}
        # Ids of tickets with bytes a second of their own.
        self.metered: set[str] = set()
        self._usages: dict[int, Usage] = {}  # by version, of those in force and those with requests
        self._touched: set[int] = set()
        self._dropped: dict[int, Ticket] = {}  # removed, with requests in flight
        self._removed: dict[bytes, DialectName] = {}
        self._telling: asyncio.TimerHandle | None = None
        self._questions: dict[str, asyncio.Future[None]] = {}

    def get(self, ticket_id: str) -> Ticket | None:
        """The ticket in force under this id, as far as is known here."""
        return self._tickets.get(_hashed(ticket_id))

    async def ask(self, ticket_id: str) -> Ticket | None:
        """The ticket of an id that is not known here, once the supervisor has looked for it."""
        if ticket_id not in self._questions:
            self._questions[ticket_id] = self._loop.create_future()
            self._send(AskTicket(ticket_id))
        await asyncio.shield(self._questions[ticket_id])  # others may wait for the same answer
        return self.get(ticket_id)

    def answered(self, ticket_id: str) -> None:
        """The supervisor has looked for this id; what it found was applied before."""
        question = self._questions.pop(ticket_id, None)
        if question is not None:
            question.set_result(None)

    def apply(self, change: Tickets) -> None:
        """Put a change in force."""
        for ticket_id in change.removed:
            self._remember(ticket_id)
            self._drop(ticket_id)
        for ticket in change.installed:
            self._drop(ticket.id)
            self._tickets[_hashed(ticket.id)] = ticket
            if ticket.bytes_s:
                self.metered.add(ticket.id)
        if change.cancel:
            self._cancel(change.removed)

    def _drop(self, ticket_id: str) -> None:
        ticket = self._tickets.pop(_hashed(ticket_id), None)
        if ticket is None:
            return
        self.metered.discard(ticket_id)
        usage = self._usages.get(ticket.version)
        if usage is not None and usage.guests:
            self._dropped[ticket.version] = ticket
        else:
            self._release(ticket)

    def _release(self, ticket: Ticket) -> None:
        """Nobody uses a ticket that is out of force: what it has moved is told, and that it is free."""
        version = ticket.version
        self._dropped.pop(version, None)
        if version in self._usages:
            self._report([version])
            del self._usages[version]
        self._touched.discard(version)
        self._send(TicketReleased(version))
        self._gone(ticket)

    def _cancel(self, ticket_ids: list[str]) -> None:
        """End the requests of all versions of these ids, also of those that were replaced before."""
        ids = set(ticket_ids)
        canceled = [version for version, ticket in self._dropped.items() if ticket.id in ids]
        for version in canceled:
            for guest in list(self._usages[version].guests):
                guest.cancel()

    def _remember(self, ticket_id: str) -> None:
        hashed = _hashed(ticket_id)
        if hashed in self._tickets:
            self._removed.pop(hashed, None)
            self._removed[hashed] = self._tickets[hashed].dialect
            if len(self._removed) > REMEMBERED:
                del self._removed[next(iter(self._removed))]

    def removed_dialect(self, ticket_id: str) -> DialectName | None:
        """The dialect of a ticket that was removed, as far as that is remembered."""
        return self._removed.get(_hashed(ticket_id))

    # -- use -------------------------------------------------------------------------------------------------

    def enter(self, ticket: Ticket, guest: Guest) -> None:
        """A request uses the ticket from now on."""
        version = ticket.version
        usage = self._usages.get(version)
        if usage is None:
            usage = self._usages[version] = Usage(ticket.measured)
            self._send(TicketFirstUsed(version, guest.client))
        usage.enter(guest)
        self._touched.add(version)
        if self._telling is None:
            self._telling = self._loop.call_later(USED_S, self._tell)

    def leave(self, ticket: Ticket, guest: Guest) -> None:
        """A request uses it no more."""
        version = ticket.version
        usage = self._usages[version]
        usage.leave(guest, self._loop.time())
        self._touched.add(version)
        if version in self._dropped and not usage.guests:
            self._release(ticket)
        elif usage.is_full:
            self._report([version])

    def _tell(self) -> None:
        """Tell what was used in the last second; the timer rests while nothing is."""
        self._touched.update(version for version, usage in self._usages.items() if usage.guests)
        touched, self._touched = self._touched, set()
        self._telling = self._loop.call_later(USED_S, self._tell) if touched else None
        if touched:
            self._report(touched)

    def tell(self, question: int, versions: list[int]) -> None:
        """Answer the supervisor's question for the use of these versions."""
        self._report(versions, question)

    def _report(self, versions: Iterable[int], question: int = 0) -> None:
        now_s = self._loop.time()
        uses: list[TicketUse] = []
        runs = 0
        for version in versions:
            if version not in self._usages:
                continue
            use = self._usages[version].told(version, now_s)
            if len(uses) == USES_MOST or (uses and runs + len(use.moved) > RUNS_MOST):
                self._send(TicketsUsed(uses, question, more=True))
                uses, runs = [], 0
            uses.append(use)
            runs += len(use.moved)
        if uses or question:
            self._send(TicketsUsed(uses, question))
