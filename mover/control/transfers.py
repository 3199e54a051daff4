"""CloudStack's transfers: registered and unregistered by its agent, and expired when nobody uses them.

A transfer is on disk before it is in force, and out of force before it is off the disk: whenever the service dies,
what its agent was told of is what the next one has.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from config.export import Export
from config.log import facts
from mover.control.port import TicketPort
from mover.control.store import Transfer, TransferStore

log = logging.getLogger(__name__)

SWEEP_S = 5.0
# Front ends tell of a request in flight every second (mover/front/tickets.py): this much silence says there is none.
GRACE_S = 2.0


@dataclass
class Active:
    """A transfer in force; `used_s` is the loop's time when it was registered or used last."""

    transfer: Transfer
    used_s: float


class Transfers:
    """All that are registered."""

    def __init__(self, tickets: TicketPort, store: TransferStore) -> None:
        self._tickets = tickets
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._active: dict[str, Active] = {}
        self._touched: set[str] = set()
        # One change at a time: what is on disk is what is in force.
        self._turn = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._active)

    def resume(self) -> None:
        """Put in force what was registered before the last end of the service; what expired meanwhile is forgotten."""
        for transfer, age_s in self._store.load():
            if age_s >= transfer.idle_s:
                self._store.forget(transfer.id)
                continue
            self._active[transfer.id] = Active(transfer, self._loop.time() - age_s)
            self._tickets.install(transfer.id, transfer.export, "cloudstack")
        if self._active:
            log.info("transfers resumed", extra=facts(transfers=len(self._active)))

    async def register(self, transfer_id: str, export: Export, idle_s: int) -> None:
        """Put a transfer in force everywhere; requests in flight go on with what they began with. Raises OSError."""
        transfer = Transfer(transfer_id, export, idle_s)
        async with self._turn:
            await asyncio.to_thread(self._store.save, transfer)
            self._active[transfer_id] = Active(transfer, self._loop.time())
            change = self._tickets.install(transfer_id, export, "cloudstack")
        log.info("registered", extra=facts(transfers=len(self), idle_s=idle_s))
        await self._tickets.applied(change)

    async def unregister(self, transfer_id: str) -> None:
        """Admit no more requests to a transfer, if it is there, and wait for those in flight. Raises OSError."""
        async with self._turn:
            if transfer_id in self._active:
                await self._remove(transfer_id, "asked to")
        # It may have been removed before: also then, what was admitted is waited for.
        await self._tickets.released(transfer_id)

    async def _remove(self, transfer_id: str, why: str) -> None:
        """To be called in turn."""
        del self._active[transfer_id]
        self._touched.discard(transfer_id)
        change = self._tickets.remove(transfer_id)
        log.info("unregistered", extra=facts(transfers=len(self), why=why))
        await asyncio.to_thread(self._store.forget, transfer_id)
        await self._tickets.applied(change)

    # -- idle time -------------------------------------------------------------------------------------------

    def used(self, ticket_ids: Iterable[str]) -> None:
        """Requests use these, or did just now."""
        for ticket_id in ticket_ids:
            active = self._active.get(ticket_id)
            if active is not None:
                active.used_s = self._loop.time()
                self._touched.add(ticket_id)

    async def sweep_for_ever(self) -> None:
        """End what nobody has used for its idle time; looked for every few seconds."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self._sweep()
            except OSError as error:
                log.error("cannot write the transfers' state", extra=facts(why=error))

    async def _sweep(self) -> None:
        async with self._turn:
            now_s = self._loop.time()
            expired = [one.transfer.id for one in self._active.values() if _is_expired(one, now_s)]
            for transfer_id in expired:
                await self._remove(transfer_id, "idle")
            touched, self._touched = self._touched, set()
            await asyncio.to_thread(self._store.used, [(one, now_s - self._active[one].used_s) for one in touched])


def _is_expired(active: Active, now_s: float) -> bool:
    return now_s - active.used_s >= active.transfer.idle_s + GRACE_S
