"""Tickets without front ends and workers: what a source installs and removes is in force at once, and never used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from config.export import Export
from config.roots import NotAllowed
from mover.serve.messages import Ticket, TicketUse
from mover.serve.tickets import TicketBook


class Port:
    """A TicketPort that nobody follows, and a TransferPort without workers; `forgotten` are the transfers it was told.

    `used` is what it says of tickets' use; None is no answer.
    """

    def __init__(self) -> None:
        self.book = TicketBook()
        self.forgotten: list[int] = []
        self.used: list[TicketUse] | None = []
        self._called = asyncio.Event()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until this holds: it is asked again whenever the port was called."""
        while not holds():
            self._called.clear()
            await self._called.wait()

    def ticket(self, ticket_id: str) -> Ticket | None:
        return self.book.get(ticket_id)

    def of_version(self, version: int) -> Ticket | None:
        return self.book.of_version(version)

    def versions(self, ticket_id: str) -> set[int]:
        ticket = self.book.get(ticket_id)
        return {ticket.version} if ticket else set()

    def install(self, ticket: Ticket) -> int:
        self._called.set()
        return self.book.install(ticket).number

    def remove(self, ticket_id: str, cancel: bool = False) -> int:
        self._called.set()
        change = self.book.remove(ticket_id, cancel)
        return change.number if change else 0

    async def applied(self, number: int) -> None:
        """It always is."""

    async def released(self, ticket_id: str) -> None:
        """It always is."""

    async def uses(self, versions: Sequence[int]) -> list[TicketUse] | None:
        self._called.set()
        if self.used is None:
            return None
        return [use for use in self.used if use.version in versions]

    async def forget(self, transfer: int, export_key: str, at_once: bool = False) -> None:
        self.forgotten.append(transfer)
        self._called.set()


class OpenGate:
    """A GatePort that lets every export pass but those in `refused`."""

    def __init__(self) -> None:
        self.refused: set[Export] = set()

    def check_host(self, export: Export) -> None:
        if export in self.refused:
            raise NotAllowed("it", "allow.files", "so says the test")

    async def check(self, export: Export) -> None:
        self.check_host(export)
