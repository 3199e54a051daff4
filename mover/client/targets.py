"""Where a download goes: a raw file, a block device, a qcow2 file. Each has a writer for every worker."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mover.client import zeros
from mover.client.errors import LocalError
from mover.client.fallocate import PUNCH_HOLE, ZERO_RANGE, fallocate
from mover.client.journal import state_journal
from mover.client.qemu import QemuNbd, create, run

if TYPE_CHECKING:
    from mover.client.nbd import NbdConnection

# A killed job's qemu-nbd writes its tables before it lets go.
LOCK_S = 20.0
LOCK_POLL_S = 0.05
# Buffers that one worker may have on their way into a qcow2 file. More of them leave the cache before they are sent:
# with four workers, 8 cost 15 % more processor time than 2.
DEPTH = 2
MAGIC_QCOW2 = b"QFI\xfb"

Written = Callable[[int, int], None]
"""Called with offset and length when these bytes are in the file, from the worker's thread."""


class Writer(Protocol):
    """One worker's way into the target."""

    def buffer(self) -> memoryview:
        """Room for the next bytes; its former content is written."""

    def write(self, offset: int, view: memoryview, written: Written) -> None:
        """Write the first bytes of the last buffer. Raises LocalError, perhaps of an earlier one."""

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros, where the target does not do so by itself."""

    def read(self, offset: int, view: memoryview) -> None:
        """Fill the view from the target."""

    def finish(self) -> None:
        """All is written when this returns."""

    def close(self) -> None:
        """Give everything back."""


class Target(Protocol):
    """Where a download goes. `fresh`: it reads as zeros where nothing was written yet."""

    fresh: bool
    journal: Path
    kept: str

    @property
    def was_there(self) -> bool:
        """Something of an earlier job is there."""

    def lock(self) -> None:
        """Take it for this job alone, before its journal is read. Raises LocalError."""

    def open(self, size_bytes: int, resume: bool) -> None:
        """Make it ready for an image of this size. Raises LocalError."""

    def writer(self, buffer_bytes: int) -> Writer:
        """A way in for one worker; from any thread."""

    def sync(self) -> None:
        """Make durable what was written. Raises LocalError."""

    def commit(self) -> None:
        """It is complete: make it durable, and have it appear under its name."""

    def close(self, keep: bool) -> None:
        """Give everything back; what is not complete is left for later, or removed."""


def open_target(path: Path, image_format: str) -> Target:
    """The target that `path` means. Raises LocalError."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = 0
    except OSError as error:
        raise LocalError.from_os(path, "opening", error) from error
    if stat.S_ISBLK(mode):
        if image_format != "raw":
            raise LocalError(path, "writing", "a block device takes raw images only", "use --format raw")
        return DeviceTarget(path)
    if mode and not stat.S_ISREG(mode):
        raise LocalError(path, "writing", "it is neither a file nor a block device", "name another one")
    return RawTarget(path) if image_format == "raw" else Qcow2Target(path)


class _Part:
    """The file beside the target that holds what has come so far, locked by the job that fills it."""

    def __init__(self, path: Path) -> None:
        self.final = path.resolve()
        self.path = self.final.with_name(f".{self.final.name}.mover-part")
        self.journal = self.final.with_name(f".{self.final.name}.mover-journal")
        self.fd = -1
        self.was_there = False

    def lock(self) -> None:
        """Open it for this job alone; waits a little for one that is ending. Raises LocalError."""
        deadline = time.monotonic() + LOCK_S
        while not self._locked():
            if time.monotonic() > deadline:
                advice = "wait until it has ended, or use another name"
                raise LocalError(self.final, "writing", "another job writes it", advice)
            time.sleep(LOCK_POLL_S)

    def _locked(self) -> bool:
        try:
            self.was_there = self.path.exists()
            self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise LocalError.from_os(self.path, "making", error, "check the directory, or name another one") from error
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it may have given it its name, or removed it: what is locked then is another file.
            if os.path.samestat(os.fstat(self.fd), self.path.stat()):
                return True
        except (BlockingIOError, FileNotFoundError):
            pass
        self.close()
        return False

    def commit(self) -> None:
        """Make it durable and give it its name. Raises LocalError."""
        try:
            os.fsync(self.fd)
            self.path.replace(self.final)
            directory = os.open(self.final.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise LocalError.from_os(self.final, "completing", error) from error

    def close(self, *, remove: bool = False) -> None:
        """Let go of it."""
        if remove:
            with contextlib.suppress(OSError):
                self.path.unlink()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class RawTarget:
    """A raw file, sparse where the image is."""

    fresh = True

    def __init__(self, path: Path) -> None:
        self._part = _Part(path)
        self.journal = self._part.journal
        self.kept = str(self._part.path)

    @property
    def was_there(self) -> bool:
        """There was a part."""
        return self._part.was_there

    def lock(self) -> None:
        """Lock the part."""
        self._part.lock()

    def open(self, size_bytes: int, resume: bool) -> None:
        """An empty file of holes, or what was left of one."""
        try:
            if not resume:
                os.ftruncate(self._part.fd, 0)
            os.ftruncate(self._part.fd, size_bytes)
        except OSError as error:
            raise LocalError.from_os(self._part.path, f"making {size_bytes} bytes of", error) from error

    def writer(self, buffer_bytes: int) -> Writer:
        """Writes at once: the page cache is the queue."""
        return FileWriter(self._part.path, self._part.fd, buffer_bytes, fresh=True)

    def sync(self) -> None:
        """fdatasync."""
        _sync(self._part.path, self._part.fd)

    def commit(self) -> None:
        """Rename it."""
        self._part.commit()

    def close(self, keep: bool) -> None:
        """Keep the part, or not."""
        self._part.close(remove=not keep)


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

    def open(self, size_bytes: int, resume: bool) -> None:
        """See that it is large enough."""
        found = os.lseek(self._fd, 0, os.SEEK_END)
        if found < size_bytes:
            raise LocalError(self._path, "writing", f"{size_bytes} bytes do not fit its {found}", "name a larger one")

    def writer(self, buffer_bytes: int) -> Writer:
        """Writes at once."""
        return FileWriter(self._path, self._fd, buffer_bytes, fresh=False)

    def sync(self) -> None:
        """fdatasync."""
        _sync(self._path, self._fd)

    def commit(self) -> None:
        """It has its name already."""
        self.sync()

    def close(self, keep: bool) -> None:
        """What was written stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class FileWriter:
    """pwrite from one buffer. `fresh`: zeros are left out, the file has them."""

    def __init__(self, path: Path, fd: int, buffer_bytes: int, *, fresh: bool) -> None:
        self._path = path
        self._fd = fd
        self._buffer = memoryview(bytearray(buffer_bytes))
        self._fresh = fresh

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
        try:
            while len(view):
                count = os.pwrite(self._fd, view, offset)
                view = view[count:]
                offset += count
        except OSError as error:
            raise LocalError.from_os(self._path, f"writing at {offset} of", error) from error

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
        read_exactly(self._path, self._fd, offset, view)

    def finish(self) -> None:
        """Nothing is on its way."""

    def close(self) -> None:
        """The file is the target's."""


class Qcow2Target:
    """A qcow2 file, written through a private qemu-nbd."""

    fresh = True

    def __init__(self, path: Path) -> None:
        self._part = _Part(path)
        self._qemu: QemuNbd | None = None
        self._lock = threading.Lock()
        self.journal = self._part.journal
        self.kept = str(self._part.path)

    @property
    def was_there(self) -> bool:
        """There was a part."""
        return self._part.was_there

    def lock(self) -> None:
        """Lock the part; the lock is qemu-nbd's, too, which may live a moment longer than a killed job."""
        self._part.lock()

    def open(self, size_bytes: int, resume: bool) -> None:
        """An empty qcow2 file, or what was left of one, with the space that a crash leaked given back."""
        if resume:
            run("qemu-img", "check", "-q", "-r", "leaks", "-f", "qcow2", str(self._part.path), path=self._part.path)
        else:
            create(self._part.path, "qcow2", size_bytes)
        self._qemu = QemuNbd(self._part.path, "qcow2", read_only=False, keep=[self._part.fd])
        if self._qemu.connection.size_bytes != size_bytes:
            why = f"it is of {self._qemu.connection.size_bytes} bytes, the image of {size_bytes}"
            raise LocalError(self._part.path, "resuming", why, "start anew without --resume")

    def writer(self, buffer_bytes: int) -> Writer:
        """Has many buffers on their way."""
        assert self._qemu is not None
        return NbdWriter(self._qemu, buffer_bytes)

    def sync(self) -> None:
        """A flush: qemu-nbd's covers all its connections, and writes the tables that find the data."""
        assert self._qemu is not None
        with self._qemu.errors("flushing"), self._lock:
            self._qemu.connection.flush()

    def commit(self) -> None:
        """Close the image, then rename it."""
        assert self._qemu is not None
        self.sync()
        self._qemu.close()
        self._qemu = None
        self._part.commit()

    def close(self, keep: bool) -> None:
        """Keep the part, or not."""
        if self._qemu is not None:
            self._qemu.close()
            self._qemu = None
        self._part.close(remove=not keep)


class NbdWriter:
    """Many writes in flight on one connection of a QemuNbd."""

    def __init__(self, qemu: QemuNbd, buffer_bytes: int) -> None:
        self._qemu = qemu
        self._connection: NbdConnection = qemu.connect()
        self._free = deque(memoryview(bytearray(buffer_bytes)) for _ in range(DEPTH))
        self._given: memoryview | None = None

    def buffer(self) -> memoryview:
        """One of DEPTH, the same until it is written; waits for one that is."""
        if self._given is not None:
            return self._given
        with self._qemu.errors("writing"):
            self._connection.pump()
            while not self._free:
                self._connection.wait()
        self._given = self._free.popleft()
        return self._given

    def write(self, offset: int, view: memoryview, written: Written) -> None:
        """Begin to write; a buffer of zeros is left out."""
        assert self._given is not None
        buffer, length = self._given, len(view)
        self._given = None
        if zeros.is_zero(view):
            self._free.append(buffer)
            written(offset, length)
            return

        def ended() -> None:
            self._free.append(buffer)
            written(offset, length)

        with self._qemu.errors("writing"):
            self._connection.write(offset, view, ended)
            self._connection.pump()

    def zero(self, offset: int, length: int) -> None:
        """A new qcow2 file reads as zeros."""

    def read(self, offset: int, view: memoryview) -> None:
        """One read at a time."""
        with self._qemu.errors("reading"):
            self._connection.read(offset, view, lambda: None)
            self._connection.drain()

    def finish(self) -> None:
        """Wait for all."""
        with self._qemu.errors("writing"):
            self._connection.drain()

    def close(self) -> None:
        """Leave."""
        self._connection.close()


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


def _sync(path: Path, fd: int) -> None:
    try:
        os.fdatasync(fd)
    except OSError as error:
        raise LocalError.from_os(path, "syncing", error) from error
