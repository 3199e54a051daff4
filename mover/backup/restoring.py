"""A point in time as a disk again: a raw or qcow2 file, or an image on a server.

Whatever is written was compared with its digest after it was read; a file gets its name only when it is whole.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol

from mover.backup.clusters import CLUSTER_BYTES, Positions, Segment, held
from mover.backup.digests import digests_of
from mover.backup.errors import BackupError
from mover.backup.files import fsync_directory, pwrite_all
from mover.backup.manifest import Manifest
from mover.backup.parallel import THREADS, Progress, Work, in_parallel, in_threads, new_buffer, nothing, of_total
from mover.backup.point_writer import Qcow2Writer
from mover.backup.qcow2 import Layout
from mover.backup.reader import PIECE_BYTES, PointReader
from mover.backup.repository import Disk
from mover.client import Client, LostWritesError
from mover.client.errors import shown

FileFormat = Literal["raw", "qcow2"]

# One request to the server: a client that leaves, or a deadline, should not meet a zeroing of hours.
ZERO_BYTES = 1024 * 1024 * 1024


class Target(Protocol):
    """Where a point goes. Methods are called from several threads."""

    def data(self, piece: Segment, offset: int, view: memoryview) -> None:
        """These bytes stand at `offset` of the disk."""

    def zeros(self, offset: int, length: int) -> None:
        """This range reads as zeros."""


def restore_to_file(
    disk: Disk, point: int | None, path: Path, file_format: FileFormat, progress: Progress = nothing
) -> Manifest:
    """Write a point (None is the newest) to the file, which must not be there yet; its manifest.

    `progress` gets the bytes of data that have been written, and of all. Raises DamagedError, NoSuchPoint, BusyError,
    BackupError.
    """
    if path.exists():
        raise BackupError(f"restoring to {path}", "it is there already", "remove it, or name another file")
    with disk.reading(), PointReader(disk, disk.chain(point)) as reader:
        try:
            with _new_file(path) as fd:
                target = _RawTarget(fd, reader) if file_format == "raw" else _Qcow2Target(fd, reader)
                done = of_total(progress, reader.data_bytes)
                in_threads(list(reader.pieces()), lambda: _copying(reader, target), done)
        except OSError as error:
            raise _writing_failed(path, error) from error
        return reader.manifest


def restore_to_server(disk: Disk, point: int | None, client: Client, progress: Progress = nothing) -> Manifest:
    """Write a point (None is the newest) into an image of at least its size; the rest of that becomes zeros.

    Raises what restore_to_file does, and ClientError. The image is half written then.
    """
    with disk.reading(), PointReader(disk, disk.chain(point)) as reader:
        there = client.size()
        if there < reader.manifest.size_bytes:
            why = f"it has {there} bytes, and the point {reader.manifest.size_bytes}"
            raise BackupError(f"restoring to {shown(client.url)}", why, "give it an image of that size")
        upload = _Upload(client, reader, progress)
        upload.send(list(reader.pieces()), there)
        return reader.manifest


def _copying(reader: PointReader, target: Target) -> Work[Segment]:
    buffer = new_buffer(PIECE_BYTES)

    def work(piece: Segment) -> int:
        offset = piece.first * CLUSTER_BYTES
        if piece.layer is None:
            target.zeros(offset, reader.length(piece))
            return 0
        view = reader.read(piece, buffer)
        target.data(piece, offset, view)
        return len(view)

    return work


# -- files -----------------------------------------------------------------------------------------------------


class _RawTarget:
    def __init__(self, fd: int, reader: PointReader) -> None:
        self._fd = fd
        os.ftruncate(fd, reader.manifest.size_bytes)

    def data(self, piece: Segment, offset: int, view: memoryview) -> None:
        pwrite_all(self._fd, view, offset)

    def zeros(self, offset: int, length: int) -> None:
        """The new file is one hole."""


class _Qcow2Target:
    """One file without a backing file."""

    def __init__(self, fd: int, reader: PointReader) -> None:
        content = held(reader.segments)
        self._writer = Qcow2Writer(fd, Layout.plan(reader.manifest.size_bytes, content, None))
        self._positions = Positions(content.data)

    def data(self, piece: Segment, offset: int, view: memoryview) -> None:
        self._writer.write(self._positions.of(piece.first), view, digests_of(view))

    def zeros(self, offset: int, length: int) -> None:
        """What a qcow2 file does not hold is zeros."""


@contextmanager
def _new_file(path: Path) -> Iterator[int]:
    """A file that has its name when the block has ended well, and is not there otherwise. Raises OSError."""
    part = path.with_name(f".{path.name}.restoring")
    with _only_ours(part) as fd:
        try:
            yield fd
            os.fsync(fd)
            os.rename(part, path)
            fsync_directory(path.parent)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


@contextmanager
def _only_ours(part: Path) -> Iterator[int]:
    """The file, empty: what a killed run left is used again, what a running one writes is not. Raises OSError."""
    while True:
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_named(fd, part):
                continue  # its owner has ended since it was opened
            os.ftruncate(fd, 0)
            yield fd
            return
        finally:
            os.close(fd)


def _is_named(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _writing_failed(path: Path, error: OSError) -> BackupError:
    if error.errno == errno.EWOULDBLOCK:
        return BackupError(f"restoring to {path}", "another run is writing it", "wait until it has ended")
    return BackupError(f"restoring to {path}", error.strerror or str(error), "make room, or use another place")


# -- servers ---------------------------------------------------------------------------------------------------


class _Upload:
    """Pieces sent by several connections, and flushed: until no write is lost."""

    def __init__(self, client: Client, reader: PointReader, progress: Progress) -> None:
        options = client.options()
        self._reader = reader
        self._progress = progress
        self._can_zero = "zero" in options.features
        self._can_flush = "flush" in options.features
        count = max(1, min(THREADS, options.max_writers))
        self._clients = [client, *(client.again() for _ in range(count - 1))]

    def send(self, pieces: list[Segment], there: int) -> None:
        """Write all the pieces, zeros from the end of the disk to `there`, and flush."""
        try:
            while pieces:
                workers = [self._sending(client) for client in self._clients]
                in_parallel(pieces, workers, of_total(self._progress, self._reader.data_bytes), self._abort)
                size = self._reader.manifest.size_bytes
                _ServerTarget(self._clients[0], self._can_zero).zeros(size, there - size)
                pieces = self._lost()
        finally:
            for client in self._clients[1:]:
                client.close()

    def _sending(self, client: Client) -> Work[Segment]:
        return _copying(self._reader, _ServerTarget(client, self._can_zero))

    def _lost(self) -> list[Segment]:
        """Flush by each connection; the pieces that a flush said are lost, to be sent again."""
        lost: list[tuple[int, int]] = []
        for client in self._clients if self._can_flush else []:
            try:
                client.flush()
            except LostWritesError as error:
                lost += error.lost
        return [piece for piece in self._reader.pieces() if any(_meets(self._reader, piece, each) for each in lost)]

    def _abort(self) -> None:
        for client in self._clients:
            client.abort()


def _meets(reader: PointReader, piece: Segment, lost: tuple[int, int]) -> bool:
    start = piece.first * CLUSTER_BYTES
    return start < lost[0] + lost[1] and lost[0] < start + reader.length(piece)


class _ServerTarget:
    def __init__(self, client: Client, can_zero: bool) -> None:
        self._client = client
        self._can_zero = can_zero

    def data(self, piece: Segment, offset: int, view: memoryview) -> None:
        self._client.write(offset, view)

    def zeros(self, offset: int, length: int) -> None:
        most = ZERO_BYTES if self._can_zero else PIECE_BYTES
        for at in range(offset, offset + length, most):
            count = min(most, offset + length - at)
            if self._can_zero:
                self._client.zero(at, count)
            else:
                self._client.write(at, bytes(count))
