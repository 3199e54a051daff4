"""What sources of tickets need of those who keep them in force (mover/serve/front_ends.py)."""

from __future__ import annotations

from typing import Protocol

from config.export import Export
from mover.serve.messages import DialectName, Ticket


class TicketPort(Protocol):
    """Tickets, as far as their sources are concerned."""

    def ticket(self, ticket_id: str) -> Ticket | None:
        """The ticket in force under this id."""

    def install(self, ticket_id: str, export: Export, dialect: DialectName) -> int:
        """Push a ticket to every front end, in place of an older one of its id; the change's number."""

    def remove(self, ticket_id: str) -> int:
        """Take a ticket out of force, if it is there; the change's number."""

    async def applied(self, number: int) -> None:
        """Wait until every front end has applied the change of this number: a removed ticket admits no request."""

    async def released(self, ticket_id: str) -> None:
        """Wait until no request uses a ticket that was of this id when this was called, and no longer is."""
