"""The bytes that a bench moves: sizes, places to keep them, files that hold them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

KIB, MIB, GIB, TIB = (1 << shift for shift in (10, 20, 30, 40))
UNITS = {"": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB}
RAM = Path("/dev/shm")
WRITE_BYTES = 8 * MIB


def parse_size(text: str) -> int:
    """Return the bytes in "1GiB", "16MiB", "1048576"; ValueError unless they are a positive multiple of 1 MiB."""
    match = re.fullmatch(r"(\d+)(|KiB|MiB|GiB|TiB)", text)
    size = int(match[1]) * UNITS[match[2]] if match else 0
    if size <= 0 or size % MIB:
        raise ValueError(f"{text}: a size is a positive multiple of 1MiB, as in 16MiB or 1GiB")
    return size


def format_size(size: int) -> str:
    """Return `size` in the largest unit that divides it: 1073741824 is "1GiB"."""
    unit = max((unit for unit in UNITS if size % UNITS[unit] == 0), key=UNITS.__getitem__)
    return f"{size // UNITS[unit]}{unit}"


@contextlib.contextmanager
def workplace(needed_bytes: int) -> Iterator[Path]:
    """Make a temporary directory for the time of the block: in RAM where `needed_bytes` leave half of it free."""
    parent = RAM if in_ram(needed_bytes) else Path(tempfile.gettempdir())
    with tempfile.TemporaryDirectory(prefix="mover-bench-", dir=parent) as directory:
        yield Path(directory)


def in_ram(needed_bytes: int) -> bool:
    """Say whether `needed_bytes` in a RAM-backed file system leave half of the memory to everybody else."""
    if not RAM.is_dir():
        return False
    free = min(shutil.disk_usage(RAM).free, psutil.virtual_memory().available)
    return 2 * needed_bytes <= free


def write_random(file: Path, offset: int, length: int) -> None:
    """Write `length` incompressible bytes to `file` at `offset`; the file is made if it is not there."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as output:
        output.seek(offset)
        while length > 0:
            length -= output.write(os.urandom(min(length, WRITE_BYTES)))


class SparseLayout:
    """Where the data of a sparse image lies: half of it in one run at the start, half in pieces far apart.

    `data_bytes` is a multiple of 1 MiB, so every edge is one of 64 KiB.

    ::

        0        data/2              size/2      …       size
        |##########|..................|#.....|#.....|#.....|
          one run    the long hole      PIECES pieces
    """

    FACTOR = 20
    PIECES = 8

    def __init__(self, data_bytes: int) -> None:
        self.size_bytes = self.FACTOR * data_bytes
        self.run = (0, data_bytes // 2)
        self.long_hole = (data_bytes // 2, self.size_bytes // 2 - data_bytes // 2)
        piece = data_bytes // 2 // self.PIECES
        stride = self.size_bytes // 2 // self.PIECES
        pieces = [(self.size_bytes // 2 + index * stride, piece) for index in range(self.PIECES)]
        # Half-open runs of data (offset, length) in bytes, in order.
        self.data = [self.run, *pieces]

    def write(self, file: Path) -> None:
        """Make `file` such an image."""
        file.touch(0o600)
        os.truncate(file, self.size_bytes)
        for offset, length in self.data:
            write_random(file, offset, length)

    def touches_hole(self, offset: int, length: int) -> bool:
        """Say whether a read of this range meets a hole."""
        return not any(start <= offset and offset + length <= start + run for start, run in self.data)
