"""The one registry of tickets, whoever installed them: on disk before they are in force, expired when nobody uses them.

Whenever the service dies, what a control client was told of is what the next one has.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping

import msgspec

from config.export import Export
from config.log import facts
from config.roots import NotAllowed
from mover.control import audit
from mover.control.entries import STATES, Entry, Event, Info, State
from mover.control.port import GatePort, Holder, TicketPort, TransferPort
from mover.control.store import Kept, Row, TicketStore, Use
from mover.front.dialect import exported
from mover.serve.messages import DialectName, Ticket, TicketUse
from workers.image.range_set import RangeSet

log = logging.getLogger(__name__)

# How often use is written down: so much of it a crash may forget.
SAVE_S = 5.0
# An expired ticket can be looked at and extended for so long.
LINGER_S = 86400.0
# Front ends that do not say whether a ticket is in use are asked again after so long.
AGAIN_S = 1.0


class NoAnswer(Exception):
    """A front end does not say how tickets are used."""

    def __init__(self) -> None:
        super().__init__("a front end does not say how the ticket is used: ask again")


class TooMany(Exception):
    """There are as many tickets as there may be."""

    def __init__(self, most: int) -> None:
        super().__init__(f"there are {most} tickets already (control.tickets_most): remove some")
        self.most = most


class Registry:
    """All tickets that were installed through a control socket."""

    def __init__(
        self, tickets: TicketPort, transfers: TransferPort, store: TicketStore, gate: GatePort, most: int
    ) -> None:
        self._gate = gate
        self._tickets = tickets
        self._transfers = transfers
        self._store = store
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._entries: dict[str, Entry] = {}
        self._touched: set[Entry] = set()
        self._seen: set[int] = set()  # transfers that were used since the service began
        # One change at a time: what is on disk is what is in force.
        self._turn = asyncio.Lock()
        self._due: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def resume(self) -> None:
        """Put in force what was there before the last end of the service; the time between counts.

        Paths are looked at when they are opened: a file system that does not answer must not hold the start.
        """
        for row in self._store.load():
            try:
                self._gate.check_host(row.kept.export)
            except NotAllowed as refused:
                log.warning("ticket not resumed", extra=facts(transfer=row.number, why=refused))
                continue
            entry = self._entry(row)
            if entry.state is State.EXPIRED and row.kept.dialect == "cloudstack":
                self._store.forget([row.number])
                continue
            self._entries[row.kept.id] = entry
            if entry.state is State.IN_FORCE:
                self._tickets.install(row.kept.ticket(row.number))
        if self._entries:
            in_force = sum(entry.state is State.IN_FORCE for entry in self._entries.values())
            log.info("tickets resumed", extra=facts(tickets=len(self._entries), in_force=in_force))
        self._schedule()

    def _entry(self, row: Row) -> Entry:
        now_s, now = self._loop.time(), time.time()
        state = State.CANCELED if row.canceled else State.IN_FORCE if row.expires > now else State.EXPIRED
        entry = Entry(row.number, row.kept, state, now_s + row.expires - now, now_s - max(0.0, now - row.used))
        entry.moved = RangeSet(row.moved)
        return entry

    def close(self) -> None:
        """No change of tickets any more."""
        if self._due is not None:
            self._due.cancel()
        for task in self._tasks:
            task.cancel()

    def end(self) -> None:
        """Nobody uses anything any more: the last use is written down."""
        try:
            self._store.used(self._uses())
        except OSError as error:
            log.error("cannot write the tickets' state", extra=facts(why=error))
        self._store.close()

    def count(self, dialect: DialectName) -> int:
        """How many tickets of this dialect are in force."""
        return sum(one.kept.dialect == dialect and one.state is State.IN_FORCE for one in self._entries.values())

    def ids(self, dialect: DialectName | None = None) -> list[str]:
        """The ids of all tickets, or of those that one dialect's clients installed; the library's are its own."""
        kept = [one.kept for one in self._entries.values()]
        return [one.id for one in kept if dialect is None or (one.dialect == dialect and not one.export.of_library)]

    def ids_of_library(self) -> list[str]:
        """The ids of the library's own."""
        return [one.kept.id for one in self._entries.values() if one.kept.export.of_library]

    def get(self, ticket_id: str) -> Kept | None:
        """The ticket of this id, whatever its state."""
        entry = self._entries.get(ticket_id)
        return None if entry is None else entry.kept

    def transfers(self) -> set[int]:
        """The transfers of all tickets, whoever holds them."""
        return self._store.numbers()

    # -- changes ---------------------------------------------------------------------------------------------

    async def install(self, kept: Kept, by: audit.Who) -> None:
        """Put a ticket in force everywhere, in place of an older one of its id.

        Requests in flight go on with what they began with. Raises NotAllowed, OSError and TooMany.
        """
        await self._gate.check(kept.export)
        async with self._turn:
            before = self._entries.get(kept.id)
            if before is None and len(self._entries) >= self._most:
                raise TooMany(self._most)
            number = await asyncio.to_thread(self._store.save, kept, time.time())
            now_s = self._loop.time()
            entry = Entry(number, kept, State.IN_FORCE, now_s + kept.timeout_s, now_s)
            self._entries[kept.id] = entry
            change = self._tickets.install(kept.ticket(number))
            audit.note("installed", number, kept.id, **by, **_shown(kept))
            if before is not None:
                self._touched.discard(before)
                self._start(self._let_go(kept.id, before))
        self._schedule()
        await self._tickets.applied(change)

    async def limit(self, ticket_id: str, limits: Mapping[str, int | None], by: audit.Who) -> bool:
        """Give a ticket other limits, also for its requests in flight; False if there is none. Raises OSError."""
        async with self._turn:
            entry = self._entries.get(ticket_id)
            if entry is None:
                return False
            kept = msgspec.structs.replace(entry.kept, **limits)
            await asyncio.to_thread(self._store.change, entry.number, kept)
            entry.kept = kept
            audit.note("limited", entry.number, ticket_id, **by, **limits)
            in_force = entry.state is State.IN_FORCE
            change = self._tickets.install(kept.ticket(entry.number)) if in_force else 0
        await self._tickets.applied(change)
        return True

    async def extend(self, ticket_id: str, timeout_s: int, by: audit.Who) -> bool:
        """Have a ticket expire in so many seconds; False if there is none. Raises OSError."""
        async with self._turn:
            entry = self._entries.get(ticket_id)
            if entry is None:
                return False
            entry.extend(self._loop.time(), timeout_s)
            await asyncio.to_thread(self._store.extend, entry.number, time.time() + timeout_s)
            change = self._extended(entry, timeout_s)
            audit.note("extended", entry.number, ticket_id, **by, timeout_s=timeout_s)
        self._schedule()
        await self._tickets.applied(change)
        return True

    def _extended(self, entry: Entry, timeout_s: int) -> int:
        before = entry.state
        self._move(entry, Event.EXTEND if timeout_s else Event.EXPIRE)
        if before is entry.state:
            return 0
        if entry.state is State.IN_FORCE:
            return self._tickets.install(entry.kept.ticket(entry.number))
        return self._tickets.remove(entry.kept.id)

    async def cancel(self, ticket_id: str, by: audit.Who) -> None:
        """Take a ticket out of force, end what is in flight, and forget it when nothing of it is under way.

        It may be asked again, by somebody whose patience was at its end. Raises OSError.
        """
        async with self._turn:
            entry = self._entries.get(ticket_id)
            if entry is not None and entry.state is not State.CANCELED:
                await asyncio.to_thread(self._store.cancel, entry.number)
                self._move(entry, Event.CANCEL)
                audit.note("canceled", entry.number, ticket_id, **by)
                await self._tickets.applied(self._tickets.remove(ticket_id, cancel=True))
        await self._let_go(ticket_id, entry, at_once=True)
        async with self._turn:
            if entry is not None and self._entries.get(ticket_id) is entry:
                await self._forget(entry)

    async def remove(self, ticket_id: str, dialect: DialectName, by: audit.Who) -> None:
        """Take a ticket of this dialect out of force, if there, and wait for what is in flight. Raises OSError."""
        async with self._turn:
            entry = self._entries.get(ticket_id)
            if entry is not None and entry.kept.dialect == dialect:
                change = self._tickets.remove(ticket_id)
                audit.note("removed", entry.number, ticket_id, **by)
                await self._forget(entry)
                await self._tickets.applied(change)
            else:
                entry = None
        # It may have been removed before: also then, what was admitted is waited for.
        await self._let_go(ticket_id, entry)

    async def _let_go(self, ticket_id: str, entry: Entry | None, at_once: bool = False) -> None:
        """Wait until nothing of a ticket that is out of force is under way; nobody will ask for its ranges any more."""
        await self._tickets.released(ticket_id)
        if entry is not None:
            self._seen.discard(entry.number)
            await self._transfers.forget(entry.number, _key(entry.kept), at_once)

    async def _forget(self, entry: Entry) -> None:
        """To be called in turn."""
        del self._entries[entry.kept.id]
        self._touched.discard(entry)
        await asyncio.to_thread(self._store.forget, [entry.number])

    def _move(self, entry: Entry, event: Event) -> None:
        old, entry.state = entry.state, STATES[entry.state, event]
        log.info("ticket's state", extra=facts(transfer=entry.number, old=old.name, new=entry.state.name))

    # -- tickets that others hold ----------------------------------------------------------------------------

    def number(self, holder: Holder, ticket_id: str, export: Export) -> int:
        """The transfer of a ticket that is not the registry's. Raises OSError."""
        return self._store.number(holder, ticket_id, export)

    def keep_numbers(self, holder: Holder, wanted: Callable[[str], bool]) -> None:
        """Forget the transfers of ids that are not wanted any more. Raises OSError."""
        self._store.forget([number for ticket_id, number in self._store.ids(holder).items() if not wanted(ticket_id)])

    def gone(self, ticket: Ticket) -> None:
        """A ticket that is not the registry's was taken out of force: its transfer will not be asked for again."""
        self._start(self._gone(ticket))

    async def _gone(self, ticket: Ticket) -> None:
        await asyncio.to_thread(self._store.forget, [ticket.transfer])
        self._seen.discard(ticket.transfer)
        await self._tickets.released(ticket.id)
        await self._transfers.forget(ticket.transfer, ticket.export.key)

    # -- use and its end -------------------------------------------------------------------------------------

    def used(self, uses: Iterable[TicketUse]) -> None:
        """Requests use these, or did just now. A request of an older version is a use of its id, too."""
        now_s = self._loop.time()
        for use in uses:
            ticket = self._tickets.of_version(use.version)
            entry = None if ticket is None else self._entries.get(ticket.id)
            if ticket is None or entry is None:
                continue
            if entry.state is State.IN_FORCE:
                entry.renew(now_s - use.idle_s)
            if ticket.transfer == entry.number:
                entry.note(use)
            self._touched.add(entry)

    def first_used(self, version: int, client: str) -> None:
        """The first request with a ticket has come to a front end; of several front ends, the first one is noted."""
        ticket = self._tickets.of_version(version)
        if ticket is not None and ticket.transfer not in self._seen:
            self._seen.add(ticket.transfer)
            audit.note("first used", ticket.transfer, ticket.id, client=client)

    async def look(self, ticket_ids: Iterable[str]) -> list[Info]:
        """The tickets of these ids as they are now; those that are not there are left out. Raises NoAnswer."""
        entries = [self._entries[one] for one in ticket_ids if one in self._entries]
        versions = {version: one for one in entries for version in self._tickets.versions(one.kept.id)}
        found: dict[Entry, list[TicketUse]] = {entry: [] for entry in entries}
        uses = await self._tickets.uses(list(versions))
        if uses is None:
            raise NoAnswer
        for use in uses:
            found[versions[use.version]].append(use)
        return [self._info(entry, uses) for entry, uses in found.items()]

    def _info(self, entry: Entry, uses: list[TicketUse]) -> Info:
        requests = sum(use.requests for use in uses)
        idle_s = 0.0 if requests else max(0.0, self._loop.time() - entry.used_s)
        connections = sum(use.connections for use in uses)
        left_s = entry.expires_s - self._loop.time()
        return Info(entry.kept, entry.state, left_s, idle_s, requests, connections, entry.moved_bytes)

    def _schedule(self) -> None:
        """Look again when the next ticket expires."""
        if self._due is not None:
            self._due.cancel()
        times = [entry.expires_s for entry in self._entries.values() if entry.state is State.IN_FORCE]
        self._due = self._loop.call_at(min(times), self._on_due) if times else None

    def _on_due(self) -> None:
        self._due = None
        self._start(self._expire())

    async def _expire(self) -> None:
        """End what nobody uses any more. What is in use, or may be, is looked at again."""
        async with self._turn:
            entries = [one for one in self._entries.values() if self._is_due(one)]
            if not entries:
                self._schedule()
                return
            versions = {version: one for one in entries for version in self._tickets.versions(one.kept.id)}
            uses = await self._tickets.uses(list(versions))
            busy = set(entries) if uses is None else {versions[use.version] for use in uses if use.requests}
            for entry in busy:
                entry.expires_s = max(entry.expires_s, self._loop.time() + AGAIN_S)
            for entry in entries:
                if self._is_due(entry):
                    await self._expired(entry)
        self._schedule()

    def _is_due(self, entry: Entry) -> bool:
        return entry.state is State.IN_FORCE and entry.expires_s <= self._loop.time()

    async def _expired(self, entry: Entry) -> None:
        self._move(entry, Event.EXPIRE)
        audit.note("expired", entry.number, entry.kept.id, **audit.EXPIRY)
        change = self._tickets.remove(entry.kept.id)
        if entry.kept.dialect == "cloudstack":
            await self._forget(entry)
            self._start(self._let_go(entry.kept.id, entry))
        await self._tickets.applied(change)

    async def save_for_ever(self) -> None:
        """Write down every few seconds what was used, and forget what has lingered."""
        while True:
            await asyncio.sleep(SAVE_S)
            try:
                await self._save()
            except OSError as error:
                log.error("cannot write the tickets' state", extra=facts(why=error))

    async def _save(self) -> None:
        async with self._turn:
            uses = self._uses()
            if uses:
                await asyncio.to_thread(self._store.used, uses)
            before_s = self._loop.time() - LINGER_S
            for entry in [one for one in self._entries.values() if one.state is not State.IN_FORCE]:
                if entry.expires_s < before_s:
                    await self._forget(entry)
                    self._start(self._let_go(entry.kept.id, entry))

    def _uses(self) -> list[Use]:
        """What is to be written down."""
        touched, self._touched = self._touched, set()
        ago = time.time() - self._loop.time()
        return [Use(one.number, one.expires_s + ago, one.used_s + ago, list(one.moved)) for one in touched]

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _shown(kept: Kept) -> audit.Who:
    """What the audit log says of a ticket that is installed."""
    return {
        "dialect": kept.dialect,
        "ops": "+".join(kept.ops),
        "export": kept.export.key,
        "timeout_s": kept.timeout_s,
        "token": kept.token is not None,
    }


def _key(kept: Kept) -> str:
    """The key of the export as front ends are told of it."""
    return exported(kept.export, kept.dialect).key
