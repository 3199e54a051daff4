"""Shared memory: sealed memfds of lanes, the supervisor's own files, and their mappings."""

from __future__ import annotations

import fcntl
import mmap
import os
import stat

# Neither side can shrink the memory under the other's feet (a SIGBUS), and both check that.
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class MemoryRefused(Exception):
    """A memfd from the other side is not what a lane needs."""


def create(name: str, size_bytes: int) -> int:
    """A new memfd of `size_bytes` zeros that can never change its size; the caller owns the descriptor."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size_bytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd


def map_shared(fd: int, size_bytes: int) -> memoryview:
    """A writable view of the memfd's `size_bytes`; it is unmapped when its last view is gone.

    Raises MemoryRefused when the descriptor is no sealed memfd of exactly that size.
    """
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        actual = os.fstat(fd).st_size
    except OSError as error:
        raise MemoryRefused(f"not a memfd: {error}") from error
    if seals & SEALS != SEALS or actual != size_bytes:
        raise MemoryRefused(f"a memfd of {actual} bytes with seals {seals:#x}, expected {size_bytes} with {SEALS:#x}")
    try:
        return memoryview(mmap.mmap(fd, size_bytes))
    except OSError as error:  # sealed against writing, too
        raise MemoryRefused(f"cannot be mapped: {error}") from error


def map_file(fd: int, size_bytes: int) -> memoryview:
    """A writable view of a file of the supervisor's, of exactly that size; it is unmapped with its last view.

    Raises MemoryRefused. A file cannot be sealed: it must be one that only its user's processes may shorten.
    """
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_size != size_bytes:
        raise MemoryRefused(f"a file of mode {found.st_mode:o} and {found.st_size} bytes, expected {size_bytes}")
    try:
        return memoryview(mmap.mmap(fd, size_bytes))
    except OSError as error:
        raise MemoryRefused(f"cannot be mapped: {error}") from error
