"""A raw file, or a block device, whose bytes stand where the image's bytes stand.

Small reads of what is in the page cache are done in the loop, which is cheaper than waking a thread; all else waits for
a disk, or copies much, and is a thread's.
"""

from __future__ import annotations

import errno
import os
import stat

from config.export import Export
from config.roots import Roots
from workers.image.connection import Owner, State
from workers.image.local_export import LocalExport
from workers.image.loop import Loop, Timer
from workers.image.opening import Pinned, allowed
from workers.image.plan import ZEROS, Command, Limits, Operation
from workers.image.threads import Call
from workers.lane.extents_format import HOLE, ZERO
from workers.lane.protocol import ImageFacts

# What a system call moves at most is 2 GiB less a page; a slot has 4 MiB.
MOST_BYTES = 32 * 1024 * 1024
# Copied in the time that waking a thread takes.
QUICK_BYTES = 64 * 1024
# Two system calls each: 4096 hold a thread for 5 ms.
MOST_RUNS = 4096
# Beyond every file.
MOST_OFFSET = 2**63 - 1
# How often the file is looked at: whether it is still there, and as long as it was.
LOOK_S = 1.0
# The file system cannot do it, or (a block device) not with this range.
NOT_POSSIBLE = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV, errno.EINVAL})
READ_ONLY = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ETXTBSY})


class FileExport(LocalExport):
    """The file at `export.path`. `server` is (device, inode): another file there does not have what this one had."""

    def __init__(self, number: int, export: Export, roots: Roots | None, loop: Loop, owner: Owner) -> None:
        super().__init__(number, export, roots, loop, owner)
        self._frozen = export.frozen
        self._of_library = export.of_library
        self._fd = -1
        self._size = 0
        self._look: Timer | None = None
        # Whether reading without waiting works here; tmpfs of Linux 6.18 does not have it.
        self._reads_at_once = True

    # -- life ------------------------------------------------------------------------------------------------

    def _open(self) -> Limits:
        self._fd, read_only = (
            open_own(self._path, self._frozen) if self._of_library else open_image(self._path, self._roots)
        )
        try:
            found = os.fstat(self._fd)
            if not (stat.S_ISREG(found.st_mode) or stat.S_ISBLK(found.st_mode)):
                raise OSError(errno.EINVAL, "neither a regular file nor a block device")
            self._size = os.lseek(self._fd, 0, os.SEEK_END)
        except OSError:
            self._close()
            raise
        self.server = _identity(found)
        self._look = self._loop.later(LOOK_S, self._look_at_file)
        return Limits(self._facts(read_only), MOST_BYTES)

    def _facts(self, read_only: bool) -> ImageFacts:
        return ImageFacts(
            size_bytes=self._size,
            read_only=read_only,
            can_flush=True,
            can_zero=True,
            has_extents=self._has_extents(),
        )

    def _has_extents(self) -> bool:
        """Block devices do not know SEEK_HOLE."""
        try:
            os.lseek(self._fd, 0, os.SEEK_HOLE)
        except OSError as error:
            return error.errno == errno.ENXIO  # an empty file has nothing to find
        return True

    def _close(self) -> None:
        if self._look is not None:
            self._look.cancel()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def left_by(self, lane: object) -> None:
        """Nothing is kept for a lane."""

    def _look_at_file(self) -> None:
        """Who replaced the file, or cut it, means the one that is there now."""
        try:
            self._check_place()
            size = os.lseek(self._fd, 0, os.SEEK_END)
        except OSError as error:
            self.break_off(f"the file is gone: {error.strerror}")
            return
        if size != self._size:
            self.break_off(f"the file has {size} bytes now, not {self._size}")
        elif self.state is State.READY:
            self._look = self._loop.later(LOOK_S, self._look_at_file)

    def _check_place(self) -> None:
        """Raises OSError if what is at the path now is not what was opened.

        A library image that was removed is read to its end by who has begun.
        """
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            if self._frozen:
                return
            raise
        if _identity(found) != self.server:
            raise OSError(errno.ESTALE, "another one has taken its place")

    # -- commands --------------------------------------------------------------------------------------------

    def send(self, command: Command) -> None:
        """Carry it out, or have a thread do it."""
        if not (command.operation is Operation.READ and command.length <= QUICK_BYTES and self._read_at_once(command)):
            super().send(command)

    def _read_at_once(self, command: Command) -> bool:
        """Whether the page cache had it all."""
        assert command.buffer is not None
        if not self._reads_at_once:
            return False
        try:
            if os.preadv(self._fd, [command.buffer], command.offset, os.RWF_NOWAIT) < command.length:
                return False
        except OSError as error:
            self._reads_at_once = error.errno != errno.EOPNOTSUPP
            return False
        self._owner.ended(command, 0)
        return True

    def _call(self, command: Command) -> Call:
        match command.operation:
            case Operation.READ:
                return self._read
            case Operation.WRITE:
                return self._write
            case Operation.ZERO:
                return self._zero
            case Operation.FLUSH:
                return self._flush
            case _:
                return self._status

    def _read(self, command: Command) -> None:
        assert command.buffer is not None
        read_all(self._fd, command.buffer, command.offset)

    def _write(self, command: Command) -> None:
        assert command.buffer is not None
        write_all(self._fd, command.buffer, command.offset)

    def _zero(self, command: Command) -> None:
        from workers.image.fallocate import PUNCH_HOLE, ZERO_RANGE, fallocate

        try:
            fallocate(self._fd, PUNCH_HOLE if command.may_hole else ZERO_RANGE, command.offset, command.length)
        except OSError as error:
            if error.errno not in NOT_POSSIBLE:
                raise
            self._write_zeros(command)

    def _write_zeros(self, command: Command) -> None:
        end = command.offset + command.length
        for at in range(command.offset, end, len(ZEROS)):
            write_all(self._fd, ZEROS[: end - at], at)

    def _flush(self, command: Command) -> None:
        """Bytes that are durable in a file that nobody finds any more are lost all the same."""
        os.fdatasync(self._fd)
        self._check_place()

    def _status(self, command: Command) -> None:
        """The first runs of the range, MOST_RUNS at most."""
        runs: list[tuple[int, int]] = []
        at, end = command.offset, command.offset + command.length
        if os.fstat(self._fd).st_size < end:
            raise OSError(errno.EIO, "the file was cut")
        while at < end and len(runs) < MOST_RUNS:
            data = min(next_data(self._fd, at), end)
            if at < data:
                runs.append((data - at, HOLE | ZERO))
            if data < end:
                hole = min(os.lseek(self._fd, data, os.SEEK_HOLE), end)
                if hole > data:  # else somebody has just made a hole there
                    runs.append((hole - data, 0))
                data = hole
            at = data
        command.found = {"base:allocation": runs}


def open_image(path: str, roots: Roots | None) -> tuple[int, bool]:
    """A descriptor, and whether it is for reading only, as the file allows. Raises OSError."""
    if roots is None:
        return _open(path)
    with Pinned(allowed(roots.file, path)) as pinned:
        return _open(pinned)


def _open(path: str) -> tuple[int, bool]:
    # Without O_NONBLOCK somebody's FIFO would hold the worker for ever.
    flags = os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(path, os.O_RDWR | flags), False
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
    return os.open(path, os.O_RDONLY | flags), True


def open_own(path: str, frozen: bool) -> tuple[int, bool]:
    """The same for a library image, which nobody changes if it is `frozen`, and which is no link. Raises OSError."""
    flags = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    return os.open(path, flags | (os.O_RDONLY if frozen else os.O_RDWR)), frozen


def read_all(fd: int, buffer: memoryview, offset: int) -> None:
    """Fill the buffer. Raises OSError: EIO where the file ends before."""
    at = 0
    while at < len(buffer):
        count = os.preadv(fd, [buffer[at:]], offset + at)
        if not count:
            raise OSError(errno.EIO, "the file was cut")
        at += count


def write_all(fd: int, buffer: memoryview, offset: int) -> None:
    """Write all of the buffer. Raises OSError; part of it may have been written then."""
    at = 0
    while at < len(buffer):
        at += os.pwritev(fd, [buffer[at:]], offset + at)


def next_data(fd: int, at: int) -> int:
    """Where the next data begins; MOST_OFFSET if there is none."""
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return MOST_OFFSET
        raise


def _identity(found: os.stat_result) -> tuple[int, int]:
    """Of a block device the device that it is: its node may be made anew."""
    return (found.st_rdev, 0) if stat.S_ISBLK(found.st_mode) else (found.st_dev, found.st_ino)
