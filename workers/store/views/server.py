"""A qemu-nbd of the worker's own, which serves the disk in a library image to it, and can do little else.

    address() ──► the image is opened and its header read ──► a socket listens, its name is gone ──► qemu-nbd is started
                                                                │
    connections of the worker ◄─── by a descriptor of it ◄──────┘        end(): killed, and what it said last

The format is given and never probed, no backing file is opened whatever the image names, and the process is confined
(workers/store/inspection/confine.py): its files are the image and that socket. Connections that it leaves behind see
their end: nobody else has the socket that listens.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from config.export import Export
from workers.image.file_export import open_own, read_all
from workers.image.loop import READ, Loop
from workers.store.inspection.claims import QEMU_NAMES, look_as
from workers.store.inspection.headers import BadImage, Read
from workers.store.inspection.qemu_img import CONFINE

# The worker opens four connections at most, and others when those were lost.
BACKLOG = 16
# What inspection/confine.py calls SERVED_FD.
SERVED = "/proc/self/fd/10"
# Each read of more than 128 KiB would have glibc map and unmap a buffer: 1.3 million page faults in 5 GiB.
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "134217728"}
SAID_BYTES = 4096
# What qemu-nbd says before the reason.
_PREFIX = re.compile(r"^qemu-nbd: (Failed to blk_new_open '[^']*': )?")
# An image that ends its server so often ends it each time.
ENDS_MOST, ENDS_WITHIN_S = 5, 60.0


class Running(NamedTuple):
    """The process, its image's descriptor, and that of its socket, which has no name any more."""

    process: subprocess.Popen[bytes]
    image_fd: int
    socket_fd: int


class ViewServer:
    """The server of the image that `export`, a view, names. It runs from `address` to `end`."""

    def __init__(self, export: Export, loop: Loop) -> None:
        self._export = export
        self._loop = loop
        self._running: Running | None = None
        self._said = b""
        self._ends: list[float] = []

    @property
    def pid(self) -> int | None:
        """The process id of the one that runs."""
        return None if self._running is None else self._running.process.pid

    def address(self) -> str:
        """The path to connect to, in this process. Raises OSError, whose text is for the client."""
        if self._running is None:
            self._check_ends()
            self._running = self._start()
        return f"/proc/self/fd/{self._running.socket_fd}"

    def end(self, wanted: bool) -> str | None:
        """End it, if it runs; what it said last. It counts as its own end, unless that was `wanted`."""
        running, self._running = self._running, None
        if running is None:
            return None
        if not wanted:
            self._ends.append(time.monotonic())
        running.process.kill()
        running.process.wait()
        self._listen_to(running)
        assert running.process.stderr is not None
        self._loop.unwatch(running.process.stderr.fileno())
        running.process.stderr.close()
        os.close(running.socket_fd)
        os.close(running.image_fd)
        lines = self._said.decode("utf-8", "replace").splitlines()
        return f"qemu-nbd says {_PREFIX.sub('', lines[-1])[:200]}" if lines else None

    def _check_ends(self) -> None:
        since = time.monotonic() - ENDS_WITHIN_S
        self._ends = [at for at in self._ends if at > since]
        if len(self._ends) >= ENDS_MOST:
            raise OSError(errno.EIO, f"qemu-nbd has ended {ENDS_MOST} times within {ENDS_WITHIN_S:g} s")

    def _start(self) -> Running:
        program = shutil.which("qemu-nbd")
        if program is None:
            raise OSError(errno.ENOENT, "qemu-nbd, which shows the disk in an image, is not installed")
        image_fd = open_own(self._export.path, frozen=True)[0]
        try:
            driver = _driver(image_fd, self._export.name)
            listening, socket_fd = _listen()
        except BaseException:
            os.close(image_fd)
            raise
        with listening:
            fds = [image_fd, listening.fileno()]
            process = subprocess.Popen(
                _command(program, driver, *fds), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, pass_fds=fds, env=ENVIRONMENT, cwd="/",
            )  # fmt: skip
        running = Running(process, image_fd, socket_fd)
        assert process.stderr is not None
        os.set_blocking(process.stderr.fileno(), False)
        self._said = b""
        self._loop.watch(process.stderr.fileno(), READ, lambda events: self._listen_to(running))
        return running

    def _listen_to(self, running: Running) -> None:
        """Keep the end of what it says; one that nobody listens to would stand still in the end."""
        assert running.process.stderr is not None
        fd = running.process.stderr.fileno()
        try:
            while said := os.read(fd, SAID_BYTES):
                self._said = (self._said + said)[-SAID_BYTES:]
        except BlockingIOError:
            return
        self._loop.unwatch(fd)  # it has ended; its connections say so, too


def _driver(fd: int, disk_format: str) -> str:
    """qemu's name of the image's format, which it must really have. Raises OSError."""
    size = os.fstat(fd).st_size
    try:
        header = look_as(_reader(fd, size), size, disk_format)
    except BadImage as bad:
        raise OSError(errno.EINVAL, f"the image is refused: {bad}") from bad
    if header.format != disk_format or header.format not in QEMU_NAMES:
        raise OSError(errno.EINVAL, f"the image is {header.format}, not {disk_format}")
    if header.others is not None:
        raise OSError(errno.EINVAL, f"the image names {header.others}: it has no disk of its own")
    return QEMU_NAMES[header.format]


def _reader(fd: int, size: int) -> Read:
    def read(offset: int, length: int) -> bytes:
        buffer = memoryview(bytearray(max(0, min(length, size - offset))))
        read_all(fd, buffer, offset)
        return bytes(buffer)

    return read


def _listen() -> tuple[socket.socket, int]:
    """A socket that listens, and a descriptor to connect to it by: its name is gone when this returns."""
    directory = tempfile.mkdtemp(prefix="mover-view-")
    path = os.path.join(directory, "nbd")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(path)
        listening.listen(BACKLOG)
        return listening, os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except BaseException:
        listening.close()
        raise
    finally:
        if os.path.lexists(path):
            os.unlink(path)
        os.rmdir(directory)


def _command(program: str, driver: str, image_fd: int, listening_fd: int) -> list[str]:
    """-I -S: nothing of the surroundings. Without a `backing` none is opened, whatever the image says."""
    file = {"driver": "file", "filename": SERVED, "locking": "off"}
    image = {"driver": driver, "read-only": True, "backing": None, "file": file}
    confined = [sys.executable, "-I", "-S", CONFINE, "--serve", str(image_fd), str(listening_fd), program]
    return [*confined, "--read-only", "--persistent", "--shared=0", f"json:{json.dumps(image)}"]
