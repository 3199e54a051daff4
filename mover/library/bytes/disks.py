"""The disk at the other end of a haul: an export by itself, or what a ticket of this host leads to.

By a ticket a haul is one of its requests: it keeps to what the ticket allows, to its size and its limits, its bytes are
counted, and it ends when the ticket is removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from config.export import Export
from mover.front.admission import TicketLimit
from mover.front.meter import Meter
from mover.front.ranges import Span
from mover.front.visit import Door
from mover.library.seam import DiskRefused, StoreGone, Ticketed
from mover.serve.messages import Ticket
from workers.lane.lane_states import LaneLost
from workers.lane.protocol import ImageFacts


class NoConnection:
    """A haul has none that could count as the ticket's."""

    lost = True


class DiskUse:
    """A haul's use of a disk. A guest of its ticket (mover/front/usage.py), if it has one."""

    connection = NoConnection()
    client = "a job"

    def __init__(
        self, export: Export, meter: Meter, ticket: Ticket | None = None, limit: TicketLimit | None = None
    ) -> None:
        self.export = export
        self.meter = meter
        self.limit = limit
        self.transfer = ticket.transfer if ticket is not None else 0
        self.sparse = ticket.sparse if ticket is not None else True
        self.moved: Span | None = None
        self.canceled = False
        self._size_bytes = ticket.size_bytes if ticket is not None else None
        self._task = asyncio.current_task()

    def size_of(self, disk: ImageFacts) -> int:
        """How much of the disk there is for it."""
        return disk.size_bytes if self._size_bytes is None else min(disk.size_bytes, self._size_bytes)

    def cancel(self) -> None:
        """The ticket was removed."""
        if not self.canceled and self._task is not None:
            self.canceled = True
            self._task.cancel()


@asynccontextmanager
async def using(door: Door, disk: Export | Ticketed, *, writes: bool) -> AsyncIterator[DiskUse]:
    """Use a disk for the time of the block. Raises DiskRefused, also in its middle, and StoreGone."""
    if isinstance(disk, Export):
        yield DiskUse(disk, door.meters.meter(None, disk.key))
        return
    ticket = await _ticket(door, disk, writes)
    meter, limit = door.meters.meter(ticket, ticket.export.key), door.meters.requests(ticket)
    use, task = DiskUse(ticket.export, meter, ticket, limit), asyncio.current_task()
    tickets = door.link.tickets
    tickets.enter(ticket, use)
    try:
        yield use
    except asyncio.CancelledError as canceled:
        if use.canceled and task is not None and not task.uncancel():
            raise DiskRefused("the disk's ticket was removed") from canceled
        raise
    finally:
        tickets.leave(ticket, use)


async def _ticket(door: Door, named: Ticketed, writes: bool) -> Ticket:
    """The ticket in force; it is to be used at once."""
    try:
        ticket = await door.link.ticket(named.ticket)
    except LaneLost as lost:
        raise StoreGone(f"the ticket cannot be looked for: {lost.reason}", lost.retry_after_s) from lost
    if ticket is None:
        raise DiskRefused("there is no such ticket, or no more")
    if not (ticket.write if writes else ticket.read):
        raise DiskRefused(f"the ticket does not allow {'writing' if writes else 'reading'}")
    if ticket.token is not None or ticket.subject is not None:
        raise DiskRefused("the ticket wants a token or a certificate, which a job does not have: name the disk's URL")
    return ticket
