"""`GET /status`: the whole house on one page, for `mover status` and `mover top`."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from mover.front import counts
from mover.serve.front_end import FrontEnd
from mover.serve.front_ends import FrontEnds
from mover.serve.image_workers import ImageWorkers
from mover.serve.listeners import Listeners
from mover.serve.messages import Activity
from mover.serve.readiness import activities
from mover.serve.tickets import TicketBook
from mover.version import version

# Of an id, which is a secret, so much is shown as tells it from others.
SHOWN_OF_ID = 6


class FrontEndRow(msgspec.Struct, frozen=True):
    """One front end; None where it does not answer."""

    number: int
    pid: int
    state: str
    connections: int | None
    in_flight: int | None
    waiting: int | None
    lanes: int | None


class TransferRow(msgspec.Struct):
    """One ticket's transfer; bytes as far as front ends remember them."""

    transfer: int
    id: str
    dialect: str
    export: str
    in_flight: int = 0
    requests: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class Status(msgspec.Struct, frozen=True):
    """The page. `faults` say what is not ready; bytes and requests since the service began."""

    version: str
    pid: int
    uptime_s: float
    addresses: str
    faults: list[str]
    front_ends: list[FrontEndRow]
    front_end_restarts: int
    workers: int
    worker_restarts: int
    tickets: int
    bytes_in: int
    bytes_out: int
    transfers: list[TransferRow]


class StatusPage:
    """Makes it."""

    def __init__(
        self,
        front_ends: FrontEnds,
        workers: ImageWorkers,
        tickets: TicketBook,
        listeners: Listeners,
        faults: Callable[[], Awaitable[list[str]]],
    ) -> None:
        self._front_ends = front_ends
        self._workers = workers
        self._tickets = tickets
        self._addresses = listeners.addresses
        self._faults = faults
        self._began_s = time.monotonic()

    async def page(self) -> bytes:
        """The JSON body."""
        asked = await activities(self._front_ends)
        words = [tally.words() for tally in self._front_ends.tallies.values()]
        moved = {way: sum(one[counts.BYTES.at(direction=way)] for one in words) for way in counts.DIRECTIONS}
        status = Status(
            version=version(),
            pid=os.getpid(),
            uptime_s=round(time.monotonic() - self._began_s, 3),
            addresses=self._addresses,
            faults=await self._faults(),
            front_ends=[_row(front_end, activity) for front_end, activity in asked],
            front_end_restarts=self._front_ends.restarts,
            workers=sum(worker.pid is not None for worker in self._workers),
            worker_restarts=self._workers.restarts,
            tickets=len(self._tickets),
            bytes_in=moved["in"],
            bytes_out=moved["out"],
            transfers=self._transfers(activity for _, activity in asked if activity is not None),
        )
        return msgspec.json.encode(status)

    def _transfers(self, found: Iterable[Activity]) -> list[TransferRow]:
        """Of tickets in force, those that were used."""
        known = {ticket.transfer: ticket for ticket in self._tickets}
        rows: dict[int, TransferRow] = {}
        for use in (use for activity in found for use in activity.uses):
            ticket = known.get(use.transfer)
            if ticket is None:
                continue
            row = rows.get(use.transfer)
            if row is None:
                shown = shown_id(ticket.id)
                row = rows[use.transfer] = TransferRow(use.transfer, shown, ticket.dialect, ticket.export.key)
            row.in_flight += use.in_flight
            row.requests += use.requests
            row.bytes_in += use.bytes_in
            row.bytes_out += use.bytes_out
        return sorted(rows.values(), key=lambda row: row.transfer)


def shown_id(ticket_id: str) -> str:
    """So much of an id as may be seen."""
    return f"{ticket_id[: min(SHOWN_OF_ID, len(ticket_id) // 2)]}…"


def _row(front_end: FrontEnd, activity: Activity | None) -> FrontEndRow:
    number, pid, state = front_end.number, front_end.pid, front_end.state.name.lower()
    if activity is None:
        return FrontEndRow(number, pid, state, None, None, None, None)
    return FrontEndRow(number, pid, state, activity.connections, activity.in_flight, activity.waiting, activity.lanes)
