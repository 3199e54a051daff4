"""How lost ranges travel in a slot: a number, then records of (offset u64, length u64).

The number is how often anything was lost on this export. TOLD gives it back as its offset, so that what was lost
while the client was being told is not struck off with what it was told of.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

HEAD = struct.Struct("<Q")
RECORD = struct.Struct("<QQ")

Range = tuple[int, int]


def most_ranges(view: memoryview) -> int:
    """How many ranges a slot has room for."""
    return (view.nbytes - HEAD.size) // RECORD.size


def pack(view: memoryview, losses: int, ranges: Sequence[Range]) -> int:
    """Fill the slot with the number and at most `most_ranges` ranges (offset, length in bytes); bytes filled."""
    HEAD.pack_into(view, 0, losses)
    end = HEAD.size
    for lost in ranges:
        RECORD.pack_into(view, end, *lost)
        end += RECORD.size
    return end


def unpack(view: memoryview) -> tuple[int, list[Range]]:
    """The number and the ranges of the filled part of a slot. Raises struct.error where they cannot be."""
    return HEAD.unpack_from(view)[0], list(RECORD.iter_unpack(view[HEAD.size :]))
