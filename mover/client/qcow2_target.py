"""A download's qcow2 file, written through a private qemu-nbd."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from mover.client import zeros
from mover.client.errors import LocalError
from mover.client.part import Part
from mover.client.qemu import QemuNbd, create, run
from mover.client.target import Writer, Written

if TYPE_CHECKING:
    from mover.client.nbd import NbdConnection

# Buffers that one worker may have on their way into a qcow2 file. More of them leave the cache before they are sent:
# with four workers, 8 cost 15 % more processor time than 2.
DEPTH = 2


class Qcow2Target:
    """A qcow2 file, written through a private qemu-nbd."""

    fresh = True

    def __init__(self, path: Path) -> None:
        self._part = Part(path)
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
