"""Files that stay: written whole, and durable before they are named."""

from __future__ import annotations

import os
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
