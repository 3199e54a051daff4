"""What the control side needs of those who keep tickets in force (mover/serve/)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Literal, Protocol

from config.export import Export
from mover.serve.messages import Ticket, TicketUse

# Who keeps tickets that the registry does not: the settings' images, and a directory's files.
Holder = Literal["settings", "directory"]


class TicketPort(Protocol):
    """Tickets, as far as their sources are concerned."""

    def ticket(self, ticket_id: str) -> Ticket | None:
        """The ticket in force under this id."""

    def of_version(self, version: int) -> Ticket | None:
        """The ticket of this version, in force or still in use."""

    def versions(self, ticket_id: str) -> Collection[int]:
        """The versions of this id that requests may use."""

    def install(self, ticket: Ticket) -> int:
        """Push a ticket to every front end, in place of an older one of its id; the change's number."""

    def remove(self, ticket_id: str, cancel: bool = False) -> int:
        """Take a ticket out of force, if it is there; the change's number. `cancel` ends its requests in flight."""

    async def applied(self, number: int) -> None:
        """Wait until every front end has applied the change of this number: a removed ticket admits no request."""

    async def released(self, ticket_id: str) -> None:
        """Wait until no request uses a ticket that was of this id when this was called, and no longer is."""

    async def uses(self, versions: Sequence[int]) -> list[TicketUse] | None:
        """How all front ends use these versions now; None if one of them does not say so in time."""


class TransferPort(Protocol):
    """The transfers behind tickets, as image workers know them."""

    async def forget(self, transfer: int, export_key: str, at_once: bool = False) -> None:
        """Wait until no job of this transfer is under way, and have the ledger forget it. Its requests have ended.

        `at_once` ends what an earlier service has left behind and nobody can reach.
        """


class NumberPort(Protocol):
    """The transfers of tickets that their holders keep themselves."""

    def number(self, holder: Holder, ticket_id: str, export: Export) -> int:
        """The transfer of a ticket: the same for the same id and export, also after a restart. Raises OSError."""

    def keep_numbers(self, holder: Holder, wanted: Callable[[str], bool]) -> None:
        """Forget the transfers of ids that are not wanted any more. Raises OSError."""

    def gone(self, ticket: Ticket) -> None:
        """A ticket was taken out of force for good: its transfer will not be asked for again."""


class GatePort(Protocol):
    """Who says which exports tickets may name (mover/control/gate.py)."""

    def check_host(self, export: Export) -> None:
        """What can be said without looking at paths. Raises NotAllowed."""

    async def check(self, export: Export) -> None:
        """Look where its paths lead. Raises NotAllowed."""
