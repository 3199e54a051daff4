"""The exports' ledgers, as the supervisor holds them: files that outlive every process. Only workers write in them, but
for what is to be done while there is none.

A worker writes through a mapping of the file, so what it has recorded is the kernel's, whoever is killed. The file is
locked by the descriptor that the worker has from the supervisor: if the supervisor dies, the next one finds it locked
until that worker has left. A file in which there is nothing is removed.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from hashlib import sha256
from uuid import UUID

import psutil

from config.log import facts
from workers.image import ledger, writers
from workers.image.ledger import LEDGER_BYTES, Ledger, LedgerBroken
from workers.image.range_set import Range
from workers.image.writers import FILE_BYTES, PAGE_AT
from workers.lane import memory

__all__ = ["KeptLedger", "LedgerBroken", "LedgerHeld", "Ledgers"]

log = logging.getLogger(__name__)

SUFFIX = ".ledger"
BOOT_ID = "/proc/sys/kernel/random/boot_id"


class LedgerHeld(Exception):
    """A worker of an earlier service still has it."""


class KeptLedger:
    """One ledger's file, locked; without a path it is memory that ends with this process.

    `doubts` are ranges that commands of an earlier service may still write.
    """

    def __init__(self, fd: int, path: str | None) -> None:
        self.fd = fd
        self.doubts: list[Range] = []
        self._path = path

    def inherit(self, boot: bytes, remote: bool, known: Callable[[], set[int]]) -> None:
        """Take over what is in the file; no worker may have it.

        What was not flushed is lost if the host was booted since, or the connection to a `remote` server ended unseen.
        After a boot the file may not have it all: whoever wrote is told of the whole image.
        """
        with self._written() as (buffer, book):
            same_boot = ledger.boot(buffer) == boot
            if remote or not same_boot:
                book.server_lost()
            if same_boot:
                self.doubts = book.doubts()
            else:
                book.clear_doubts()
                _lose(book, writers.noted(buffer[PAGE_AT:]), known)
                ledger.set_boot(buffer, boot)
            if book.transfers():
                transfers = known()
                for transfer in [one for one in book.transfers() if one not in transfers]:
                    book.forget(transfer)
            if not book.transfers():
                writers.clear(buffer)

    def completed(self) -> int:
        """Jobs completed by all workers of this export."""
        return ledger.completed(self._content())

    def begun(self) -> list[tuple[int, int, int]]:
        """(offset, length, tag) of writes that were begun and have not ended. Raises LedgerBroken."""
        return ledger.begun(self._content())

    def forget(self, transfer: int) -> None:
        """Nobody will ask for this transfer's ranges any more. No worker may have it. Raises LedgerBroken."""
        with self._written() as (_, book):
            book.forget(transfer)

    def server_lost(self) -> None:
        """What is not flushed is lost. No worker may have it. Raises LedgerBroken."""
        with self._written() as (_, book):
            book.server_lost()

    def reset(self, boot: bytes, known: Callable[[], set[int]]) -> None:
        """Begin anew: what was in it is no ledger. All that anybody has written since it was empty counts as lost."""
        noted = writers.noted(os.pread(self.fd, writers.PAGE_BYTES, PAGE_AT))
        os.ftruncate(self.fd, 0)
        _make_room(self.fd)
        with self._written() as (buffer, book):
            _lose(book, noted, known)
            ledger.set_boot(buffer, boot)

    def close(self) -> None:
        """Let go of it, and of its file if there is nothing in that."""
        try:
            if self._path is not None and ledger.is_empty(self._content()):
                os.unlink(self._path)
        except (OSError, LedgerBroken) as error:
            log.error("a ledger stays on disk", extra=facts(file=self._path, why=error))
        os.close(self.fd)

    def _content(self) -> memoryview:
        """A copy: a worker that shortened the file must not have this process killed by a mapping."""
        return memoryview(os.pread(self.fd, LEDGER_BYTES, 0).ljust(ledger.HEADER_BYTES, b"\0"))

    @contextmanager
    def _written(self) -> Iterator[tuple[memoryview, Ledger]]:
        if os.fstat(self.fd).st_size != FILE_BYTES:
            raise LedgerBroken("size in bytes", os.fstat(self.fd).st_size, FILE_BYTES)
        buffer = memory.map_file(self.fd, FILE_BYTES)
        yield buffer, Ledger(buffer[:LEDGER_BYTES])


class Ledgers:
    """All ledgers, a file each in a directory; `known` are the transfers that somebody may ask for."""

    def __init__(self, directory: str, known: Callable[[], set[int]]) -> None:
        self._directory = directory
        self._known = known
        with open(BOOT_ID) as file:
            self._boot = UUID(file.read().strip()).bytes

    def open(self, key: str, remote: bool) -> KeptLedger:
        """The ledger of an export. Raises LedgerHeld.

        Where the disk has no room for it, it is memory: the image is served, and a crash of the service is not told.
        """
        path = self._path(key)
        try:
            os.makedirs(self._directory, 0o700, exist_ok=True)
            kept = KeptLedger(_open_locked(path), path)
        except BlockingIOError:
            raise LedgerHeld from None
        except OSError as error:
            log.error("a ledger is not on disk, and ends with the service", extra=facts(export=key, why=error))
            return KeptLedger(memory.create("mover-ledger", FILE_BYTES), None)
        self._inherit(kept, remote)
        return kept

    def _inherit(self, kept: KeptLedger, remote: bool) -> None:
        try:
            kept.inherit(self._boot, remote, self._known)
        except LedgerBroken as error:
            log.error("replaced a broken ledger", extra=facts(why=error))
            kept.reset(self._boot, self._known)

    def reset(self, kept: KeptLedger) -> None:
        """Begin anew with a ledger that is broken."""
        kept.reset(self._boot, self._known)

    def forget(self, key: str, transfer: int) -> bool:
        """Nobody will ask for this transfer's ranges any more; False while somebody else has the export's ledger."""
        path = self._path(key)
        if not os.path.exists(path):
            return True
        try:
            fd = _open_locked(path)
        except BlockingIOError:
            return False
        with closing(KeptLedger(fd, path)) as kept:
            try:
                kept.forget(transfer)
            except LedgerBroken as error:
                log.error("a ledger is broken", extra=facts(export=key, why=error))
        return True

    def sweep(self) -> None:
        """Forget what nobody will ask for, and remove what there is nothing in, of all that no worker has."""
        if not os.path.isdir(self._directory):
            return
        for name in os.listdir(self._directory):
            if not name.endswith(SUFFIX):
                continue
            path = os.path.join(self._directory, name)
            try:
                kept = KeptLedger(_open_locked(path), path)
            except OSError:
                continue  # held, or not ours to open
            self._inherit(kept, False)
            kept.close()

    def evict(self, key: str) -> None:
        """End the workers of an earlier service that have the export's ledger: nobody can ask them to stop."""
        path = self._path(key)
        for process in psutil.process_iter():
            if process.pid != os.getpid() and _has_open(process.pid, path):
                log.warning("ended a worker of an earlier service", extra=facts(pid=process.pid, export=key))
                _kill_if(process.pid, path)

    def _path(self, key: str) -> str:
        return os.path.join(self._directory, sha256(key.encode()).hexdigest()[:32] + SUFFIX)


def _lose(book: Ledger, noted: Sequence[int], known: Callable[[], set[int]]) -> None:
    """All that these transfers may have written counts as lost, as far as anybody may ask."""
    if noted:
        transfers = known()
        for transfer in transfers if writers.ANY in noted else transfers.intersection(noted):
            book.lose(transfer)


def _open_locked(path: str) -> int:
    """A locked descriptor of the file, which is made if it is not there. Raises BlockingIOError, OSError."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(fd, path):
                _make_room(fd)
                return fd
        except OSError:
            os.close(fd)
            raise
        os.close(fd)  # it was removed between the two


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _make_room(fd: int) -> None:
    """Zeros where there is nothing yet, and room on the disk: writing to a hole on a full one would kill the worker."""
    os.ftruncate(fd, FILE_BYTES)
    os.posix_fallocate(fd, 0, FILE_BYTES)


def _has_open(pid: int, path: str) -> bool:
    try:
        return any(os.readlink(f"/proc/{pid}/fd/{fd}") == path for fd in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return False


def _kill_if(pid: int, path: str) -> None:
    """Kill the process of this number if it is still the one that has the file open."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if _has_open(pid, path):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)
