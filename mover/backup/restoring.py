"""A point in time as a file again, raw or qcow2.

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

from mover.backup.clusters import Segment, held
from mover.backup.errors import BackupError
from mover.backup.files import fsync_directory, pwrite_all
from mover.backup.manifest import Manifest
from mover.backup.parallel import Work, in_threads, new_buffer
from mover.backup.point_writer import Qcow2Writer, not_zero
from mover.backup.reader import PIECE_BYTES, PointReader
from mover.backup.repository import Disk
from mover.client.clusters import CLUSTER_BYTES, Positions
from mover.client.progress import OnProgress, Tally
from mover.client.qcow2 import Layout

FileFormat = Literal["raw", "qcow2"]


def restore_to_file(
    disk: Disk, point: int | None, path: Path, file_format: FileFormat, progress: OnProgress | None = None
) -> Manifest:
    """Write a point (None is the newest) to the file, which must not be there yet; its manifest.

    Raises DamagedError, NoSuchPoint, BusyError, BackupError.
    """
    if path.is_block_device():
        why, advice = "it is a device", "serve it (`mover serve --image`), and restore to its URL"
        raise BackupError(f"restoring to {path}", why, advice)
    if path.exists():
        raise BackupError(f"restoring to {path}", "it is there already", "remove it, or name another file")
    tally = Tally(progress)
    with disk.reading(), PointReader(disk, disk.chain(point)) as reader:
        try:
            with _new_file(path) as fd:
                target = _RawTarget(fd, reader) if file_format == "raw" else _Qcow2Target(fd, reader)
                pieces = [piece for piece in reader.pieces() if piece.layer is not None]
                tally.set(phase="data", size=reader.manifest.size_bytes, data=reader.data_bytes)
                in_threads(pieces, lambda: _copying(reader, target), tally)
        except OSError as error:
            raise _writing_failed(path, error) from error
        return reader.manifest


# -- files -----------------------------------------------------------------------------------------------------


class _Target(Protocol):
    """A file that holds nothing yet, so that all of it reads as zeros. Called from several threads."""

    def data(self, piece: Segment, view: memoryview, digests: list[bytes]) -> None:
        """The data of this piece, and the digests of its clusters."""


def _copying(reader: PointReader, target: _Target) -> Work[Segment]:
    buffer = new_buffer(PIECE_BYTES)

    def work(piece: Segment) -> int:
        view, digests = reader.read(piece, buffer)
        target.data(piece, view, digests)
        return len(view)

    return work


class _RawTarget:
    def __init__(self, fd: int, reader: PointReader) -> None:
        self._fd = fd
        os.ftruncate(fd, reader.manifest.size_bytes)

    def data(self, piece: Segment, view: memoryview, digests: list[bytes]) -> None:
        for start, end in not_zero(view, digests):
            pwrite_all(self._fd, view[start:end], piece.first * CLUSTER_BYTES + start)


class _Qcow2Target:
    """One file without a backing file."""

    def __init__(self, fd: int, reader: PointReader) -> None:
        content = held(reader.segments)
        self._writer = Qcow2Writer(fd, Layout.plan(reader.manifest.size_bytes, content, None))
        self._positions = Positions(content.data)

    def data(self, piece: Segment, view: memoryview, digests: list[bytes]) -> None:
        self._writer.write(self._positions.of(piece.first), view, digests)


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
