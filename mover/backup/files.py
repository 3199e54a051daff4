"""Files that stay: written whole, and durable before they are named."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def fsync_directory(directory: Path) -> None:
    """The names in it outlive the host. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_durably(path: Path, data: bytes) -> None:
    """Make the file `data`, whatever it was, and have it outlive the host. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        pwrite_all(fd, data, 0)
        os.fsync(fd)
    finally:
        os.close(fd)


def open_file(path: Path) -> int:
    """Open it for reading. What is no file is refused: of a pipe the end would never come. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "it is no file", str(path))


def read_file(path: Path) -> bytes:
    """All of it, in the same way. Raises OSError."""
    with os.fdopen(open_file(path), "rb") as file:
        return file.read()


def pwrite_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data`: the system may take less at a time. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def pread_into(fd: int, buffer: memoryview, offset: int) -> int:
    """Fill `buffer`; the bytes that there were, fewer where the file ends. Raises OSError."""
    at = 0
    while at < len(buffer) and (count := os.preadv(fd, [buffer[at:]], offset + at)):
        at += count
    return at
