"""Transfers as files of JSON in a directory, named by their ids: how CloudStack's earlier servers were told.

A file is read when a client first asks for its id, and again when it has changed; its ticket goes when it goes. Only
regular files of the directory itself are read: whoever may write there cannot point Mover at another file by a link.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import time
from dataclasses import dataclass

import msgspec

from config.export import Export
from config.images import id_fault
from config.log import facts
from config.roots import NotAllowed
from mover.control import audit
from mover.control.config import BadTransfer, Config, export_of
from mover.control.port import GatePort, NumberPort, TicketPort
from mover.serve.messages import Ticket

log = logging.getLogger(__name__)

FILE_BYTES = 64 * 1024
# How long a file that changed keeps its old ticket.
POLL_S = 0.5
# A file that changed so shortly before it was read may change again without a new modification time.
SETTLED_NS = 1_000_000_000


@dataclass(frozen=True)
class Look:
    """What a file looked like when it was read; two that look the same are the same."""

    inode: int
    size: int
    modified_ns: int


@dataclass(frozen=True)
class Held:
    """A ticket of a file's. Without a look the file is read again."""

    version: int
    export: Export
    look: Look | None


class TransferDir:
    """The directory, and the tickets that it gave. Its files are small and local: reading them blocks."""

    def __init__(self, path: str, tickets: TicketPort, numbers: NumberPort, gate: GatePort) -> None:
        self._path = path
        self._tickets = tickets
        self._numbers = numbers
        self._gate = gate
        self._held: dict[str, Held] = {}
        # One change at a time: the gate has to be waited for.
        self._turn = asyncio.Lock()
        numbers.keep_numbers("directory", lambda ticket_id: os.path.lexists(os.path.join(path, ticket_id)))
        if not os.path.isdir(path):
            log.warning("the directory of transfers is not there yet", extra=facts(path=path))

    async def look(self, ticket_id: str) -> None:
        """Install the ticket that a file gives this id, unless there is one already."""
        if id_fault(ticket_id) is not None:
            return
        async with self._turn:
            if self._tickets.ticket(ticket_id) is None:
                await self._renew(ticket_id)

    async def poll_for_ever(self) -> None:
        """Poll every so often."""
        while True:
            await asyncio.sleep(POLL_S)
            await self.poll()

    async def poll(self) -> None:
        """Look whether files have changed whose tickets are in force."""
        async with self._turn:
            for ticket_id, held in list(self._held.items()):
                ticket = self._tickets.ticket(ticket_id)
                if ticket is None or ticket.version != held.version:
                    del self._held[ticket_id]  # somebody else's now
                elif held.look is None or held.look != self._seen(ticket_id):
                    await self._renew(ticket_id)

    def _seen(self, ticket_id: str) -> Look | None:
        try:
            return _look(os.lstat(os.path.join(self._path, ticket_id)))
        except OSError:
            return None

    async def _renew(self, ticket_id: str) -> None:
        """Read a file, and have its ticket say what it says: none if it is gone, is no transfer, or is not allowed.

        To be called in turn.
        """
        held = self._held.pop(ticket_id, None)
        try:
            export, look = self._read(ticket_id)
            await self._gate.check(export)
            if held is None or held.export != export:
                self._install(ticket_id, export)
        except (OSError, BadTransfer, NotAllowed) as error:
            if not isinstance(error, FileNotFoundError):
                log.warning("a transfer's file is no use", extra=facts(why=error))
            if held is not None:
                self._take_away(ticket_id)
            return
        ticket = self._tickets.ticket(ticket_id)
        assert ticket is not None
        self._held[ticket_id] = Held(ticket.version, export, look)

    def _take_away(self, ticket_id: str) -> None:
        ticket = self._tickets.ticket(ticket_id)
        assert ticket is not None
        self._tickets.remove(ticket_id)
        audit.note("removed", ticket.transfer, ticket_id, **audit.DIRECTORY)
        self._numbers.gone(ticket)

    def _install(self, ticket_id: str, export: Export) -> None:
        before = self._tickets.ticket(ticket_id)
        number = self._numbers.number("directory", ticket_id, export)
        ticket = Ticket(ticket_id, 0, export, sparse=True, dialect="cloudstack", transfer=number)
        self._tickets.install(ticket)
        audit.note("installed", number, ticket_id, **audit.DIRECTORY, export=export.key)
        if before is not None:
            self._numbers.gone(before)

    def _read(self, ticket_id: str) -> tuple[Export, Look | None]:
        """Raises OSError and BadTransfer."""
        directory = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # Without O_NONBLOCK a FIFO would hold us for ever.
            fd = os.open(ticket_id, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
        finally:
            os.close(directory)
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise BadTransfer("it is no regular file")
            content = file.read(FILE_BYTES + 1)
        settled = time.time_ns() - status.st_mtime_ns > SETTLED_NS
        return export_of(_config(content), tcp=True), _look(status) if settled else None


def _look(status: os.stat_result) -> Look:
    return Look(status.st_ino, status.st_size, status.st_mtime_ns)


def _config(content: bytes) -> Config:
    if len(content) > FILE_BYTES:
        raise BadTransfer(f"it is larger than {FILE_BYTES} bytes")
    try:
        config = msgspec.json.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadTransfer(f"bad JSON: {error}") from error
    if not isinstance(config, dict):
        raise BadTransfer("it holds no JSON object")
    return config
