"""The tickets in force at this front end, and the requests that use them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from mover.serve.messages import AskTicket, DialectName, Ticket, TicketReleased, Tickets, TicketsUsed

# Often enough for idle times of seconds, and seldom enough to cost nothing.
USED_S = 1.0
# Of so many removed tickets the dialect is remembered, in which their clients are told that they are gone.
REMEMBERED = 1024


class TicketShelf:
    """Tickets by id. It tells the supervisor which ones are used, and when one that was removed no longer is.

    A request takes its ticket, and is then between `enter` and `leave` for as long as it uses it. Nothing may be
    awaited between taking and entering: a ticket that was removed meanwhile would be used once more.
    """

    def __init__(self, send: Callable[[msgspec.Struct], None]) -> None:
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._tickets: dict[str, Ticket] = {}
        self._in_use: dict[int, int] = {}  # requests, by version
        self._used: set[int] = set()
        self._dropped: set[int] = set()
        self._removed: dict[str, DialectName] = {}
        self._telling: asyncio.TimerHandle | None = None
        self._questions: dict[str, asyncio.Future[None]] = {}

    def get(self, ticket_id: str) -> Ticket | None:
        """The ticket in force under this id, as far as is known here."""
        return self._tickets.get(ticket_id)

    async def ask(self, ticket_id: str) -> Ticket | None:
        """The ticket of an id that is not known here, once the supervisor has looked for it."""
        if ticket_id not in self._questions:
            self._questions[ticket_id] = self._loop.create_future()
            self._send(AskTicket(ticket_id))
        await asyncio.shield(self._questions[ticket_id])  # others may wait for the same answer
        return self._tickets.get(ticket_id)

    def answered(self, ticket_id: str) -> None:
        """The supervisor has looked for this id; what it found was applied before."""
        question = self._questions.pop(ticket_id, None)
        if question is not None:
            question.set_result(None)

    def apply(self, change: Tickets) -> list[int]:
        """Put a change in force; the versions that it dropped."""
        for ticket_id in change.removed:
            self._remember(ticket_id)
        dropped = [self._drop(ticket_id) for ticket_id in change.removed]
        for ticket in change.installed:
            dropped.append(self._drop(ticket.id))
            self._tickets[ticket.id] = ticket
        return [version for version in dropped if version is not None]

    def _drop(self, ticket_id: str) -> int | None:
        ticket = self._tickets.pop(ticket_id, None)
        if ticket is None:
            return None
        if ticket.version in self._in_use:
            self._dropped.add(ticket.version)
        else:
            self._send(TicketReleased(ticket.version))
        return ticket.version

    def _remember(self, ticket_id: str) -> None:
        if ticket_id in self._tickets:
            self._removed.pop(ticket_id, None)
            self._removed[ticket_id] = self._tickets[ticket_id].dialect
            if len(self._removed) > REMEMBERED:
                del self._removed[next(iter(self._removed))]

    def removed_dialect(self, ticket_id: str) -> DialectName | None:
        """The dialect of a ticket that was removed, as far as that is remembered."""
        return self._removed.get(ticket_id)

    # -- use -------------------------------------------------------------------------------------------------

    def enter(self, ticket: Ticket) -> None:
        """A request uses the ticket from now on."""
        version = ticket.version
        self._in_use[version] = self._in_use.get(version, 0) + 1
        self._used.add(version)
        if self._telling is None:
            self._telling = self._loop.call_later(USED_S, self._tell)

    def leave(self, ticket: Ticket) -> None:
        """A request uses it no more."""
        version = ticket.version
        self._used.add(version)
        self._in_use[version] -= 1
        if not self._in_use[version]:
            del self._in_use[version]
            if version in self._dropped:
                self._dropped.remove(version)
                self._send(TicketReleased(version))

    def _tell(self) -> None:
        """Tell what was used in the last second; the timer rests while nothing is."""
        self._used.update(self._in_use)
        if self._used:
            self._send(TicketsUsed(list(self._used)))
            self._used.clear()
            self._telling = self._loop.call_later(USED_S, self._tell)
        else:
            self._telling = None
