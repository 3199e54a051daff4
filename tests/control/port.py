"""Tickets without front ends: what a source installs and removes is in force at once."""

from __future__ import annotations

from config.export import Export
from mover.serve.messages import DialectName, Ticket
from mover.serve.tickets import TicketBook


class Port:
    """A TicketPort that nobody follows."""

    def __init__(self) -> None:
        self.book = TicketBook()

    def ticket(self, ticket_id: str) -> Ticket | None:
        return self.book.get(ticket_id)

    def install(self, ticket_id: str, export: Export, dialect: DialectName) -> int:
        return self.book.install(ticket_id, export, sparse=True, dialect=dialect).number

    def remove(self, ticket_id: str) -> int:
        change = self.book.remove(ticket_id)
        return change.number if change else 0

    async def applied(self, number: int) -> None:
        """It always is."""

    async def released(self, ticket_id: str) -> None:
        """It always is."""
