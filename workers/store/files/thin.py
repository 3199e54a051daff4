"""Writing without zeros: what is not written is a hole.

buffer   |  0  | data| data|  0  |  0  |0 data 0| ...      chunks of chunk_bytes
written        [-----------)             [--)              whole chunks of zeros are left out, and at the edges
                                                           of data blocks of 4 KiB are
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from workers.image.file_export import write_all
from workers.nbd_handle import zeros_in

# A page, and most file systems' block.
BLOCK_BYTES = 4096

IsZero = Callable[[int, int], bool]


def write_plain(fd: int, buffer: memoryview, offset: int) -> None:
    """Write all of it. Raises OSError."""
    write_all(fd, buffer, offset)


def write_thin(fd: int, buffer: memoryview, offset: int, chunk_bytes: int) -> None:
    """Write what is not zero, for a file that has only holes there. Raises OSError."""
    for start, end in data_runs(zeros_in(buffer), len(buffer), chunk_bytes):
        write_all(fd, buffer[start:end], offset + start)


def data_runs(is_zero: IsZero, length: int, chunk_bytes: int) -> Iterator[tuple[int, int]]:
    """The runs that are to be written, in order, of `length` bytes."""
    start = -1
    for at in range(0, length, chunk_bytes):
        zero = is_zero(at, min(chunk_bytes, length - at))
        if zero and start >= 0:
            yield _trimmed(is_zero, start, at)
            start = -1
        elif not zero and start < 0:
            start = at
    if start >= 0:
        yield _trimmed(is_zero, start, length)


def _trimmed(is_zero: IsZero, start: int, end: int) -> tuple[int, int]:
    """The run without the blocks of zeros at its edges; it is not all zeros."""
    while is_zero(start, min(BLOCK_BYTES, end - start)):
        start += BLOCK_BYTES
    while is_zero(last := max(start, (end - 1) // BLOCK_BYTES * BLOCK_BYTES), end - last):
        end = last
    return start, end
