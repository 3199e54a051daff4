"""How extents travel in a slot: records of (length u64, flags u32), one after the other, without gaps.

Written by the worker (workers/image/extents.py), read by the front end. Offsets follow from the lengths.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

# base:allocation's bits as NBD numbers them. HOLE alone does not promise zeros; only ZERO does.
HOLE = 1
ZERO = 2
# Changed since the dirty bitmap was made; a bit of our own, since every context's bits begin at 1.
DIRTY = 4
ALL_FLAGS = HOLE | ZERO | DIRTY

RECORD = struct.Struct("<QI")

Extent = tuple[int, int]


class ExtentsBroken(Exception):
    """Extents that describe no image: the other side's mistake. `value` is what was found."""

    def __init__(self, what: str, value: int) -> None:
        super().__init__(f"extents broken: {what}: {value}")
        self.what = what
        self.value = value


def unpack(view: memoryview) -> Iterator[Extent]:
    """Extents (length in bytes, flags) of the filled part of a slot. Raises ExtentsBroken where it meets none."""
    if view.nbytes % RECORD.size:
        raise ExtentsBroken(f"bytes, in records of {RECORD.size}", view.nbytes)
    for length, flags in RECORD.iter_unpack(view):
        if not length:
            raise ExtentsBroken("length", length)
        if flags & ~ALL_FLAGS:
            raise ExtentsBroken("flags", flags)
        yield length, flags


def unpack_all(view: memoryview, covered: int) -> list[Extent]:
    """The same as a list that describes `covered` bytes, neither more nor less. Raises ExtentsBroken."""
    found = list(unpack(view))
    total = sum(length for length, _ in found)
    if total != covered:
        raise ExtentsBroken(f"bytes described, not {covered}", total)
    return found
