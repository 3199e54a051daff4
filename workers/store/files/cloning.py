"""A file's bytes into another file by the kernel: shared where the file system can do that, else copied in it.

Holes stay holes. copy_file_range(2) shares blocks by itself on XFS and Btrfs; between file systems it is not possible,
and the bytes come through memory.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from workers.image.file_export import next_data, read_all

BUFFER_BYTES = 1024 * 1024
NOT_POSSIBLE = frozenset({errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})

Write = Callable[[memoryview, int], None]
Zero = Callable[[int, int], None]


def clone_step(source: int, target: int, at: int, size: int, most: int, write: Write, zero: Zero) -> int:
    """Bring the bytes from `at` on of `size` to the same place of the target, `most` of data; where it ended.

    `write` and `zero` are the target's own ways. Raises OSError.
    """
    left = most
    while at < size and left > 0:
        data = min(next_data(source, at), size)
        if at < data:
            zero(at, data - at)
        end = min(os.lseek(source, data, os.SEEK_HOLE), data + left, size) if data < size else size
        _copy(source, target, data, end, write)
        left -= end - data
        at = end
    return at


def _copy(source: int, target: int, at: int, end: int, write: Write) -> None:
    while at < end:
        try:
            count = os.copy_file_range(source, target, end - at, at, at)
        except OSError as error:
            if error.errno not in NOT_POSSIBLE:
                raise
            _copy_through_memory(source, at, end, write)
            return
        if not count:
            raise OSError(errno.EIO, "the file was cut")
        at += count


def _copy_through_memory(source: int, at: int, end: int, write: Write) -> None:
    buffer = memoryview(bytearray(BUFFER_BYTES))
    while at < end:
        piece = buffer[: end - at]
        read_all(source, piece, at)
        write(piece, at)
        at += len(piece)
