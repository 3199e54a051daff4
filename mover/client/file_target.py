"""Targets that are written as they are: raw files and block devices."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from mover.client import zeros
from mover.client.errors import LocalError
from mover.client.fallocate import PUNCH_HOLE, ZERO_RANGE, fallocate
from mover.client.journal import state_journal
from mover.client.part import Part
from mover.client.plan import Run
from mover.client.target import Writer, Written


class PartTarget:
    """What both kinds of files share that are made beside their place, as parts."""

    fresh = True

    def __init__(self, path: Path) -> None:
        self._part = Part(path)
        self.journal = self._part.journal
        self.kept = str(self._part.path)

    @property
    def was_there(self) -> bool:
        """There was a part."""
        return self._part.was_there

    def lock(self) -> None:
        """Lock the part."""
        self._part.lock()

    def sync(self) -> None:
        """fdatasync."""
        sync(self._part.path, self._part.fd)

    def commit(self) -> None:
        """Rename it."""
        self._part.commit()

    def close(self, keep: bool) -> None:
        """Keep the part, or not."""
        self._part.close(remove=not keep)


class RawTarget(PartTarget):
    """A raw file, sparse where the image is."""

    def open(self, size_bytes: int, runs: Sequence[Run], resume: bool) -> None:
        """A file of holes, or what was left of one."""
        self._part.make(size_bytes, resume)

    def writer(self, buffer_bytes: int) -> Writer:
        """Writes at once: the page cache is the queue."""
        return FileWriter(self._part.path, self._part.fd, buffer_bytes, fresh=True)


class DeviceTarget:
    """A block device, written in place: its former content is gone from the first byte on."""

    fresh = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self.journal = state_journal(f"download {path.resolve()}")
        self.kept = str(path)
        self.was_there = True

    def lock(self) -> None:
        """Open it for nobody else."""
        try:
            # O_EXCL: of a device, it means that nothing of it is mounted or otherwise in use.
            self._fd = os.open(self._path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
        except OSError as error:
            raise LocalError.from_os(self._path, "opening", error, "unmount it, or name another one") from error

    def open(self, size_bytes: int, runs: Sequence[Run], resume: bool) -> None:
        """See that it is large enough."""
        found = os.lseek(self._fd, 0, os.SEEK_END)
        if found < size_bytes:
            raise LocalError(self._path, "writing", f"{size_bytes} bytes do not fit its {found}", "name a larger one")

    def writer(self, buffer_bytes: int) -> Writer:
        """Writes at once."""
        return FileWriter(self._path, self._fd, buffer_bytes, fresh=False)

    def sync(self) -> None:
        """fdatasync."""
        sync(self._path, self._fd)

    def commit(self) -> None:
        """It has its name already."""
        self.sync()

    def close(self, keep: bool) -> None:
        """What was written stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


Place = Callable[[int], int]
"""Where in the file the image's byte at an offset is. What is written at once lies in a row."""


def _as_it_is(offset: int) -> int:
    return offset


class FileWriter:
    """pwrite from one buffer. `fresh`: zeros are left out, the file has them."""

    def __init__(self, path: Path, fd: int, buffer_bytes: int, *, fresh: bool, place: Place = _as_it_is) -> None:
        self._path = path
        self._fd = fd
        self._buffer = memoryview(bytearray(buffer_bytes))
        self._fresh = fresh
        self._place = place

    def buffer(self) -> memoryview:
        """The buffer."""
        return self._buffer

    def write(self, offset: int, view: memoryview, written: Written) -> None:
        """Into the page cache."""
        for start, length, zero in zeros.runs(view, offset):
            if not (zero and self._fresh):
                self._pwrite(offset + start, view[start : start + length])
        written(offset, len(view))

    def _pwrite(self, offset: int, view: memoryview) -> None:
        write_exactly(self._path, self._fd, self._place(offset), view)

    def zero(self, offset: int, length: int) -> None:
        """By the kernel, with a hole where it can; else by zeros."""
        if self._fresh:
            return
        for mode in (PUNCH_HOLE, ZERO_RANGE):
            with contextlib.suppress(OSError):
                fallocate(self._fd, mode, offset, length)
                return
        while length:
            part = min(length, len(zeros.SLAB))
            self._pwrite(offset, zeros.SLAB[:part])
            offset, length = offset + part, length - part

    def read(self, offset: int, view: memoryview) -> None:
        """pread."""
        read_exactly(self._path, self._fd, self._place(offset), view)

    def finish(self) -> None:
        """Nothing is on its way."""

    def close(self) -> None:
        """The file is the target's."""


def read_exactly(path: Path, fd: int, offset: int, view: memoryview) -> None:
    """Fill the view from a file. Raises LocalError, also where the file ends before."""
    try:
        while len(view):
            count = os.preadv(fd, [view], offset)
            if not count:
                raise LocalError(path, f"reading at {offset} of", "the file ends before", "has it been cut?")
            view = view[count:]
            offset += count
    except OSError as error:
        raise LocalError.from_os(path, f"reading at {offset} of", error, "check the disk") from error


def write_exactly(path: Path, fd: int, offset: int, view: memoryview) -> None:
    """Write all of the view into a file. Raises LocalError."""
    try:
        while len(view):
            count = os.pwrite(fd, view, offset)
            view = view[count:]
            offset += count
    except OSError as error:
        raise LocalError.from_os(path, f"writing at {offset} of", error) from error


def sync(path: Path, fd: int) -> None:
    """Make durable what was written to a file. Raises LocalError."""
    try:
        os.fdatasync(fd)
    except OSError as error:
        raise LocalError.from_os(path, "syncing", error) from error


def seek(path: Path, fd: int, at: int, whence: int, end: int) -> int:
    """Where data (SEEK_DATA) or a hole (SEEK_HOLE) begins from `at` on, `end` if none does before. Raises LocalError.

    Where the file system cannot tell, all is data.
    """
    try:
        return min(os.lseek(fd, at, whence), end)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return end  # no data after it
        if error.errno == errno.EINVAL:
            return at if whence == os.SEEK_DATA else end
        raise LocalError.from_os(path, "reading extents of", error) from error
