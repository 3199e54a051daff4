"""Who may work on a disk at the same time, by locks of the kernel on two files: they end with their process.

work                 writing.lock   reading.lock
full, incremental    exclusive                       one at a time, beside restores
prune                exclusive      exclusive        alone
restore, verify                     shared           many at a time, beside backups
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from mover.backup.errors import BusyError
from mover.backup.names import READING_LOCK, WRITING_LOCK

MOST_NOTE_BYTES = 200
LOCKS = Path("/proc/locks")


@contextlib.contextmanager
def writing(directory: Path, name: str, work: str) -> Iterator[None]:
    """The disk's points may be added to. Raises BusyError; `name` and `work` ("full", …) are for whoever meets it."""
    with _locked(directory / WRITING_LOCK, fcntl.LOCK_EX, name) as fd:
        note = f"{os.getpid()} {work}".encode()
        os.pwrite(fd, note.ljust(MOST_NOTE_BYTES), 0)
        yield


@contextlib.contextmanager
def reading(directory: Path, name: str) -> Iterator[None]:
    """No file that a manifest names goes away or changes. Raises BusyError."""
    with _locked(directory / READING_LOCK, fcntl.LOCK_SH, name):
        yield


@contextlib.contextmanager
def alone(directory: Path, name: str, work: str) -> Iterator[None]:
    """Nobody else is at work on the disk. Raises BusyError."""
    with writing(directory, name, work), _locked(directory / READING_LOCK, fcntl.LOCK_EX, name):
        yield


def writer(directory: Path) -> int | None:
    """The process of this host that adds or removes points, None if none does: for lists, which hold no lock."""
    return _holder_by_kernel(directory / WRITING_LOCK)


@contextlib.contextmanager
def _locked(path: Path, kind: int, name: str) -> Iterator[int]:
    fd = _opened(path, kind)
    try:
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(name, *_holder(path, kind)) from None
        yield fd
    finally:
        os.close(fd)


def _opened(path: Path, kind: int) -> int:
    """The lock's file, made where a copy of the repository has left it out."""
    if kind == fcntl.LOCK_SH:
        # Who only reads needs no right to write: a repository may be mounted so.
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _holder(path: Path, wanted: int) -> tuple[int | None, str]:
    """Who holds the lock, and what it is doing."""
    pid = _holder_by_kernel(path)
    if path.name == READING_LOCK:
        return pid, "prune" if wanted == fcntl.LOCK_SH else "restore or verify"
    noted, _, work = path.read_text(errors="replace").strip().partition(" ")
    # The note is of whoever held the lock before, for a moment; and of another host, for which the kernel has no pid.
    if noted.isdecimal() and pid in (int(noted), None):
        return int(noted), work
    return pid, "backup or prune"


def _holder_by_kernel(path: Path) -> int | None:
    """The first process that holds a flock on the file. A line: `1: FLOCK  ADVISORY  WRITE 123 fe:00:456 0 EOF`."""
    inode = str(path.stat().st_ino)
    try:
        lines = LOCKS.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        words = line.split()
        if len(words) > 5 and words[1] == "FLOCK" and words[5].rpartition(":")[2] == inode and int(words[4]) > 0:
            return int(words[4])
    return None
