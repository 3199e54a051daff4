"""The tickets in force, their versions, and which front end has applied or still uses what. Rules, no I/O."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from mover.front.dialect import DIALECTS, exported
from mover.serve.messages import DialectName, Ticket, Tickets
from workers.lane.channel import PACKET_BYTES

# What a Tickets message needs beside its tickets: tag, number, lengths.
ENVELOPE_BYTES = 256


@dataclass(frozen=True)
class Retired:
    """A ticket that was removed or replaced, and the followers where requests may still use it."""

    ticket: Ticket
    followers: set[Hashable]


class TicketBook:
    """Every ticket by its id; every change has a number, and a follower (a front end) applies them in order."""

    def __init__(self) -> None:
        self._tickets: dict[str, Ticket] = {}
        self._versions: dict[int, Ticket] = {}  # those in force
        self._last_version = 0
        self._last_number = 0
        self._applied: dict[Hashable, int] = {}
        self._retired: dict[int, Retired] = {}

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self._tickets.values())

    def dialects(self) -> dict[DialectName, int]:
        """How many tickets in force speak each dialect."""
        counts = dict.fromkeys(DIALECTS, 0)
        for ticket in self._tickets.values():
            counts[ticket.dialect] += 1
        return counts

    def get(self, ticket_id: str) -> Ticket | None:
        """The ticket in force under this id."""
        return self._tickets.get(ticket_id)

    def names(self, export_key: str) -> bool:
        """Whether a ticket leads to this export that is in force, or that requests may still use."""
        tickets = [*self._tickets.values(), *(retired.ticket for retired in self._retired.values())]
        return any(ticket.export.key == export_key for ticket in tickets)

    def install(self, ticket: Ticket) -> Tickets:
        """Put a ticket in force, in place of an older one of its id; the change to push to every follower.

        Its version is a new one, whatever it says; without a transfer, that is the version, too.
        """
        self._last_version += 1
        export = exported(ticket.export, ticket.dialect)
        transfer = ticket.transfer or self._last_version
        ticket = replace(ticket, version=self._last_version, export=export, transfer=transfer)
        self._retire(self._tickets.get(ticket.id))
        self._tickets[ticket.id] = self._versions[ticket.version] = ticket
        return Tickets(self._next_number(), installed=[ticket])

    def remove(self, ticket_id: str, cancel: bool = False) -> Tickets | None:
        """Take a ticket out of force; the change to push to every follower, None if there is nothing to change.

        `cancel` has the requests end that are in flight under this id, also those of tickets that were removed before.
        """
        ticket = self._tickets.pop(ticket_id, None)
        if ticket is None and not (cancel and self.retired(ticket_id)):
            return None
        self._retire(ticket)
        return Tickets(self._next_number(), removed=[ticket_id], cancel=cancel)

    def _retire(self, ticket: Ticket | None) -> None:
        if ticket is None:
            return
        del self._versions[ticket.version]
        if self._applied:
            self._retired[ticket.version] = Retired(ticket, set(self._applied))

    def of_version(self, version: int) -> Ticket | None:
        """The ticket of this version, in force or retired; None if nobody uses it any more."""
        retired = self._retired.get(version)
        return self._versions.get(version) if retired is None else retired.ticket

    def retired(self, ticket_id: str) -> frozenset[int]:
        """The versions of this id that are out of force and that requests may still use."""
        return frozenset(version for version, retired in self._retired.items() if retired.ticket.id == ticket_id)

    def released(self, follower: Hashable, version: int) -> bool:
        """A follower says that nobody there uses this retired version any more; False if that cannot be true."""
        retired = self._retired.get(version)
        if retired is None or follower not in retired.followers:
            return False
        self._release(follower, version, retired)
        return True

    def _release(self, follower: Hashable, version: int, retired: Retired) -> None:
        retired.followers.discard(follower)
        if not retired.followers:
            del self._retired[version]

    def is_released(self, versions: frozenset[int]) -> bool:
        """Whether nobody uses any of these retired versions any more."""
        return versions.isdisjoint(self._retired)

    def join(self, follower: Hashable) -> list[Tickets]:
        """A new follower: the changes that bring it from nothing to the present. There is always at least one.

        Their numbers are new ones, so that an acknowledgement never means a part of the set; the others see a gap.
        """
        self._applied[follower] = 0
        pieces = list(_pieces(self._tickets.values())) or [[]]
        return [Tickets(self._next_number(), installed=piece) for piece in pieces]

    def applied(self, follower: Hashable, number: int) -> bool:
        """A follower says that every change up to `number` is in force there; False if that cannot be true."""
        if not self._applied[follower] <= number <= self._last_number:
            return False
        self._applied[follower] = number
        return True

    def leave(self, follower: Hashable) -> None:
        """A follower is dead: nobody waits for it. Its successor gets the whole set before it is ready."""
        self._applied.pop(follower, None)
        for version, retired in list(self._retired.items()):
            self._release(follower, version, retired)

    def has_applied(self, follower: Hashable, number: int) -> bool:
        """Whether this follower has every change up to `number`."""
        return self._applied.get(follower, 0) >= number

    def settled(self, number: int) -> bool:
        """Whether every follower has every change up to `number`."""
        return all(applied >= number for applied in self._applied.values())

    def _next_number(self) -> int:
        self._last_number += 1
        return self._last_number


def _pieces(tickets: Iterable[Ticket]) -> Iterator[list[Ticket]]:
    """The tickets in lists that fit a packet each."""
    encode = msgspec.msgpack.Encoder().encode
    piece: list[Ticket] = []
    room = PACKET_BYTES - ENVELOPE_BYTES
    for ticket in tickets:
        size = len(encode(ticket))
        if piece and size > room:
            yield piece
            piece, room = [], PACKET_BYTES - ENVELOPE_BYTES
        piece.append(ticket)
        room -= size
    if piece:
        yield piece
