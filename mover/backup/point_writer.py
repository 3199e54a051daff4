"""The files of a point in the making: a qcow2 file and its digests, under names that nobody lists."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from mover.backup.digests import DIGEST_BYTES, is_zero
from mover.backup.files import pwrite_all
from mover.client.clusters import CLUSTER_BYTES
from mover.client.qcow2 import Layout


class Qcow2Writer:
    """A qcow2 file with its metadata written, and its data to come, from any thread and in any order."""

    def __init__(self, fd: int, layout: Layout) -> None:
        """Raises OSError. The caller closes `fd`, whose file is empty."""
        self._fd = fd
        self._layout = layout
        at = 0
        for piece in layout.metadata():
            pwrite_all(fd, piece, at)
            at += len(piece)
        os.ftruncate(fd, layout.file_bytes)

    def write(self, position: int, data: memoryview, digests: list[bytes]) -> None:
        """Write clusters of data, the first one at `position`; those that are zeros stay holes. Raises OSError."""
        place = self._layout.place(position)
        for start, end in not_zero(data, digests):
            pwrite_all(self._fd, data[start:end], place + start)


def not_zero(data: memoryview, digests: list[bytes]) -> Iterator[tuple[int, int]]:
    """Ranges of `data`, as long as can be, whose clusters are not all zeros."""
    start = 0
    for number, found in enumerate(digests):
        at = number * CLUSTER_BYTES
        if is_zero(found, min(CLUSTER_BYTES, len(data) - at)):
            if start < at:
                yield start, at
            start = at + CLUSTER_BYTES
    if start < len(data):
        yield start, len(data)


class PointWriter:
    """The new files of a point, `file` and `digests`: written here, named by Disk.publish."""

    def __init__(self, file: int, digests: int, layout: Layout) -> None:
        self._file = file
        self._digests = digests
        self._qcow2 = Qcow2Writer(file, layout)

    def write(self, position: int, data: memoryview, digests: list[bytes]) -> None:
        """Write clusters of data, the first one at `position`, and their digests."""
        self._qcow2.write(position, data, digests)
        pwrite_all(self._digests, b"".join(digests), position * DIGEST_BYTES)

    def sync(self) -> None:
        """Both files outlive the host."""
        os.fsync(self._file)
        os.fsync(self._digests)


@contextlib.contextmanager
def new_point(file: Path, digests: Path, layout: Layout) -> Iterator[PointWriter]:
    """Both files for the time of the block; they are removed if it fails. Raises OSError."""
    try:
        with _created(file) as fd, _created(digests) as digests_fd:
            yield PointWriter(fd, digests_fd, layout)
    except BaseException:
        file.unlink(missing_ok=True)
        digests.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _created(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)
