"""Where an upload comes from: a raw file, a block device, a qcow2 file. Each has a reader for every worker."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mover.client.errors import LocalError
from mover.client.extents import Extent
from mover.client.file_target import read_exactly, seek
from mover.client.journal import state_journal
from mover.client.qemu import QemuNbd

if TYPE_CHECKING:
    from mover.client.nbd import NbdConnection

# One NBD read; several are in flight for one buffer.
READ_BYTES = 512 * 1024
MAGIC_QCOW2 = b"QFI\xfb"


class Reader(Protocol):
    """One worker's way out of the source: what was begun last comes with `take`, while the next one is read."""

    def begin(self, offset: int, length: int) -> None:
        """Begin to read, at most a buffer; at most one more than was taken."""

    def take(self) -> memoryview:
        """What was begun first. Valid until the next but one is begun. Raises LocalError."""

    def close(self) -> None:
        """Give everything back."""


class Source(Protocol):
    """Where an upload comes from. `identity` is what would be different of another one, or of one that changed."""

    path: Path
    size_bytes: int
    identity: list[int]
    journal: Path

    def extents(self) -> list[Extent]:
        """Where it is zero."""

    def reader(self, buffer_bytes: int) -> Reader:
        """A way out for one worker; from any thread."""

    def check_unchanged(self) -> None:
        """Raises LocalError if it was written to since it was opened."""

    def close(self) -> None:
        """Give everything back."""


def open_source(path: Path, image_format: str) -> Source:
    """The source that `path` is. Raises LocalError."""
    return RawSource(path) if image_format == "raw" else QemuSource(path, image_format)


def guess_format(path: Path) -> str:
    """qcow2 by the name's suffix, otherwise raw; never by the content, which may be a guest's.

    Raises LocalError where the content says otherwise: that should be said explicitly.
    """
    if path.suffix == ".qcow2":
        return "qcow2"
    try:
        with path.open("rb") as file:
            begin = file.read(len(MAGIC_QCOW2)) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""
    except OSError as error:
        raise LocalError.from_os(path, "opening", error, "check the path") from error
    if begin == MAGIC_QCOW2:
        raise LocalError(path, "opening", "it begins like a qcow2 file", "say --format qcow2, or --format raw")
    return "raw"


def _identity(status: os.stat_result) -> list[int]:
    """Of a device, nothing tells whether it was written to."""
    if stat.S_ISBLK(status.st_mode):
        return [status.st_rdev]
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]


def _check_unchanged(path: Path, status: os.stat_result, identity: list[int]) -> None:
    if _identity(status) != identity:
        raise LocalError(path, "upload of", "it was written to meanwhile", "upload it again, when nobody writes to it")


def _journal(path: Path, status: os.stat_result) -> Path:
    final = path.resolve()
    if stat.S_ISREG(status.st_mode) and os.access(final.parent, os.W_OK):
        return final.with_name(f".{final.name}.mover-upload-journal")
    return state_journal(f"upload {final}")


class RawSource:
    """A raw file or a block device."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            status = os.fstat(self._fd)
            self.size_bytes = os.lseek(self._fd, 0, os.SEEK_END)
        except OSError as error:
            raise LocalError.from_os(path, "opening", error, "check the path") from error
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
            self.close()
            raise LocalError(path, "opening", "it is neither a file nor a block device", "name another one")
        self.identity = _identity(status)
        self.journal = _journal(path, status)

    def extents(self) -> list[Extent]:
        """What the file system says; a block device says nothing."""
        return list(self._extents())

    def _extents(self) -> Iterator[Extent]:
        at = 0
        while at < self.size_bytes:
            data = seek(self.path, self._fd, at, os.SEEK_DATA, self.size_bytes)
            if data > at:
                yield Extent(at, data - at, zero=True, hole=True)
            end = seek(self.path, self._fd, data, os.SEEK_HOLE, self.size_bytes) if data < self.size_bytes else data
            if end > data:
                yield Extent(data, end - data, zero=False)
            at = end

    def reader(self, buffer_bytes: int) -> Reader:
        """Reads when it is asked: the kernel reads ahead."""
        return FileReader(self.path, self._fd, buffer_bytes)

    def check_unchanged(self) -> None:
        """By its time of change."""
        _check_unchanged(self.path, os.fstat(self._fd), self.identity)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class FileReader:
    """pread into one buffer."""

    def __init__(self, path: Path, fd: int, buffer_bytes: int) -> None:
        self._path = path
        self._fd = fd
        self._buffer = memoryview(bytearray(buffer_bytes))
        self._begun: list[tuple[int, int]] = []

    def begin(self, offset: int, length: int) -> None:
        """Only noted."""
        self._begun.append((offset, length))

    def take(self) -> memoryview:
        """Read now."""
        offset, length = self._begun.pop(0)
        view = self._buffer[:length]
        read_exactly(self._path, self._fd, offset, view)
        return view

    def close(self) -> None:
        """The file is the source's."""


class QemuSource:
    """A file that qemu-nbd reads, with what is behind it."""

    def __init__(self, path: Path, image_format: str) -> None:
        self.path = path
        try:
            status = path.stat()
        except OSError as error:
            raise LocalError.from_os(path, "opening", error, "check the path") from error
        self.identity = _identity(status)
        self.journal = _journal(path, status)
        self._qemu = QemuNbd(path, image_format)
        self.size_bytes = self._qemu.connection.size_bytes

    def extents(self) -> list[Extent]:
        """What qemu says."""
        with self._qemu.errors("reading extents of"):
            return [Extent(at, length, zero) for at, length, zero in self._qemu.connection.extents()]

    def reader(self, buffer_bytes: int) -> Reader:
        """Reads one buffer ahead."""
        return NbdReader(self._qemu, buffer_bytes)

    def check_unchanged(self) -> None:
        """By its time of change."""
        _check_unchanged(self.path, self.path.stat(), self.identity)

    def close(self) -> None:
        """End qemu-nbd; readers are closed before."""
        self._qemu.close()


class NbdReader:
    """Two buffers: one is taken while the other is read into, by several reads in flight."""

    def __init__(self, qemu: QemuNbd, buffer_bytes: int) -> None:
        self._qemu = qemu
        self._connection: NbdConnection = qemu.connect()
        self._buffers = [memoryview(bytearray(buffer_bytes)) for _ in range(2)]
        self._begun: list[tuple[memoryview, list[int]]] = []

    def begin(self, offset: int, length: int) -> None:
        """Send the reads."""
        buffer = self._buffers.pop(0)
        self._buffers.append(buffer)
        missing: list[int] = []
        self._begun.append((buffer[:length], missing))
        with self._qemu.errors("reading"):
            for at in range(0, length, READ_BYTES):
                missing.append(at)
                part = buffer[at : min(at + READ_BYTES, length)]
                self._connection.read(offset + at, part, lambda at=at: missing.remove(at))  # type: ignore[misc]
            self._connection.pump()

    def take(self) -> memoryview:
        """Wait for all reads of the first that was begun."""
        view, missing = self._begun.pop(0)
        with self._qemu.errors("reading"):
            while missing:
                self._connection.wait()
        return view

    def close(self) -> None:
        """Leave."""
        self._connection.close()
