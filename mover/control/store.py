"""All tickets on disk: one SQLite database in the state directory, so that they survive whatever ends the service.

A change is on disk when the method that makes it returns. Each ticket has a number that no other one ever had: the
name of its transfer, under which the ledgers keep its ranges.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from config.export import Export
from config.log import facts
from mover.control.port import Holder
from mover.serve.errors import CannotStart
from mover.serve.messages import DialectName, Ticket, Token
from workers.image.range_set import Range

log = logging.getLogger(__name__)

FILE = "tickets.db"
LOCK = "lock"
# What the tables below are; another number is another Mover's.
SCHEMA = 1
# Times are seconds since 1970. `holder` is whose the id is: the registry's, or of the settings' or a directory's files,
# of whose tickets only the number is kept.
TABLES = """
CREATE TABLE ticket (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    holder TEXT NOT NULL,
    id TEXT NOT NULL,
    content BLOB NOT NULL,
    expires REAL NOT NULL DEFAULT 0,
    used REAL NOT NULL DEFAULT 0,
    canceled INTEGER NOT NULL DEFAULT 0,
    moved BLOB NOT NULL DEFAULT x'5b5d',
    UNIQUE (holder, id)
)
"""
REGISTRY = "registry"
Op = Literal["read", "write"]


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A ticket as it was installed; it expires `timeout_s` seconds after its last use."""

    id: str
    export: Export
    timeout_s: int
    dialect: DialectName = "imageio"
    url: str = ""
    ops: tuple[Op, ...] = ()
    size_bytes: int | None = None
    transfer_id: str | None = None
    filename: str | None = None
    sparse: bool = False
    dirty: bool = False
    inactivity_s: int | None = None
    token: Token | None = None
    subject: str | None = None
    bytes_s: int | None = None
    requests_most: int | None = None

    @property
    def measured(self) -> bool:
        """Whether its bytes are counted: reads and writes of one ticket would make no sensible sum."""
        return len(self.ops) == 1

    def ticket(self, number: int) -> Ticket:
        """What front ends are told of it."""
        return Ticket(
            self.id,
            version=0,
            export=self.export,
            write="write" in self.ops,
            sparse=self.sparse,
            filename=self.filename,
            dialect=self.dialect,
            transfer=number,
            read=bool(self.ops),  # "write" implies "read"
            size_bytes=self.size_bytes,
            dirty=self.dirty,
            inactivity_s=self.inactivity_s,
            token=self.token,
            measured=self.measured,
            subject=self.subject,
            bytes_s=self.bytes_s,
            requests_most=self.requests_most,
        )


@dataclass(frozen=True)
class Row:
    """A ticket as it is kept; times are seconds since 1970, `moved` are ranges in bytes."""

    number: int
    kept: Kept
    expires: float
    used: float
    canceled: bool
    moved: list[Range]


@dataclass(frozen=True)
class Use:
    """What changes with a ticket's use."""

    number: int
    expires: float
    used: float
    moved: Sequence[Range]


class TicketStore:
    """The database. All methods may block, may be called from any thread, and raise OSError when the disk fails."""

    def __init__(self, directory: str) -> None:
        """Open it, and hold the directory alone. Raises CannotStart."""
        what = f"keep tickets in {directory}"
        self._lock = threading.Lock()
        try:
            self._fd = os.open(os.path.join(directory, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CannotStart(what, str(error.strerror).lower(), "give another --state-dir or mend it") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._fd)
            raise CannotStart(what, "another Mover keeps its own there", "give another --state-dir") from error
        try:
            self._database = _open(os.path.join(directory, FILE))
        except (sqlite3.Error, OSError) as error:
            os.close(self._fd)
            advice = f"move {FILE} away, which forgets all tickets, or give another --state-dir"
            raise CannotStart(what, f"{FILE} is no use: {error}", advice) from error

    def close(self) -> None:
        """Let go of it."""
        self._database.close()
        os.close(self._fd)

    # -- the registry's tickets ------------------------------------------------------------------------------

    def load(self) -> list[Row]:
        """All that were saved, in the order of their numbers."""
        query = "SELECT number, content, expires, used, canceled, moved FROM ticket WHERE holder = ? ORDER BY number"
        found = []
        for number, content, expires, used, canceled, moved in self._run(query, (REGISTRY,)):
            try:
                kept = msgspec.json.decode(content, type=Kept)
                ranges = msgspec.json.decode(moved, type=list[tuple[int, int]])
            except msgspec.MsgspecError as error:
                log.error("a kept ticket is no use", extra=facts(transfer=number, why=error))
            else:
                found.append(Row(number, kept, expires, used, bool(canceled), ranges))
        return found

    def save(self, kept: Kept, now: float) -> int:
        """Keep a ticket, in place of an older one of its id; its number."""
        return self._put(REGISTRY, kept.id, msgspec.json.encode(kept), now + kept.timeout_s, now)

    def extend(self, number: int, expires: float) -> None:
        """It expires then."""
        self._run("UPDATE ticket SET expires = ? WHERE number = ?", (expires, number))

    def change(self, number: int, kept: Kept) -> None:
        """It says something else now, and keeps its number."""
        self._run("UPDATE ticket SET content = ? WHERE number = ?", (msgspec.json.encode(kept), number))

    def cancel(self, number: int) -> None:
        """It will never be in force again."""
        self._run("UPDATE ticket SET canceled = 1 WHERE number = ?", (number,))

    def used(self, uses: Iterable[Use]) -> None:
        """Note how tickets were used."""
        rows = [(use.expires, use.used, msgspec.json.encode(use.moved), use.number) for use in uses]
        self._run_many("UPDATE ticket SET expires = ?, used = ?, moved = ? WHERE number = ?", rows)

    def forget(self, numbers: Iterable[int]) -> None:
        """Keep these no more."""
        self._run_many("DELETE FROM ticket WHERE number = ?", [(number,) for number in numbers])

    # -- numbers -----------------------------------------------------------------------------------------------

    def numbers(self) -> set[int]:
        """The numbers of all tickets, whoever holds them."""
        return {number for (number,) in self._run("SELECT number FROM ticket")}

    def number(self, holder: Holder, ticket_id: str, export: Export) -> int:
        """The number of a ticket that is not kept itself: the same for the same id and export, also after a restart."""
        content = msgspec.json.encode(export)
        query = "SELECT number FROM ticket WHERE holder = ? AND id = ? AND content = ?"
        for (number,) in self._run(query, (holder, ticket_id, content)):
            return int(number)
        return self._put(holder, ticket_id, content, 0, 0)

    def ids(self, holder: Holder) -> dict[str, int]:
        """The ids that have numbers there."""
        return dict(self._run("SELECT id, number FROM ticket WHERE holder = ?", (holder,)))

    # -- SQLite ------------------------------------------------------------------------------------------------

    def _put(self, holder: str, ticket_id: str, content: bytes, expires: float, used: float) -> int:
        with self._lock, _as_os_error(), self._database as transaction:
            transaction.execute("DELETE FROM ticket WHERE holder = ? AND id = ?", (holder, ticket_id))
            insert = "INSERT INTO ticket (holder, id, content, expires, used) VALUES (?, ?, ?, ?, ?)"
            number = transaction.execute(insert, (holder, ticket_id, content, expires, used)).lastrowid
        assert number is not None
        return number

    def _run(self, statement: str, values: tuple[object, ...] = ()) -> list[Any]:
        with self._lock, _as_os_error(), self._database as transaction:
            return transaction.execute(statement, values).fetchall()

    def _run_many(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        with self._lock, _as_os_error(), self._database as transaction:
            transaction.executemany(statement, rows)


def _open(path: str) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # SQLite's own mode would let others read
    database = sqlite3.connect(path, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        # What was answered must outlive the host, too: each commit is synced.
        database.execute("PRAGMA synchronous = FULL")
        with database as transaction:
            [[schema]] = transaction.execute("PRAGMA user_version")
            if schema == 0:
                transaction.execute(TABLES)
                transaction.execute(f"PRAGMA user_version = {SCHEMA}")
            elif schema != SCHEMA:
                raise sqlite3.DatabaseError(f"its version is {schema}, this Mover's is {SCHEMA}")
    except sqlite3.Error:
        database.close()
        raise
    return database


@contextmanager
def _as_os_error() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise OSError(errno.EIO, f"{FILE}: {error}") from error
