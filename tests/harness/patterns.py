"""Images whose every block says which image it is of, where in it, and who wrote it.

A block of 4 KiB is one record, repeated; so a block that got lost, moved, was torn or came from another image is
told apart, and the message of a failed comparison says what stands there instead.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BLOCK_BYTES = 4096
MIB = 1024 * 1024
# "mover!!\n", image, offset, stamp: 32 bytes, 128 times in a block.
RECORD = struct.Struct("<8sQQQ")
MAGIC = b"mover!!\n"

Bytes = bytes | bytearray | memoryview


def block(image: int, offset: int, stamp: int = 0) -> bytes:
    """The block at `offset` of `image`; `stamp` tells one writing of it from the next."""
    return RECORD.pack(MAGIC, image, offset, stamp) * (BLOCK_BYTES // RECORD.size)


def pattern(image: int, offset: int, length: int, stamp: int = 0) -> bytes:
    """The bytes from `offset` on; offset and length need no alignment."""
    first = offset - offset % BLOCK_BYTES
    whole = b"".join(block(image, at, stamp) for at in range(first, offset + length, BLOCK_BYTES))
    return whole[offset - first : offset - first + length]


def write_pattern(path: Path, image: int, length: int, stamp: int = 0) -> None:
    """Make the file an image of `length` bytes."""
    with path.open("wb") as file:
        for offset in range(0, length, MIB):
            file.write(pattern(image, offset, min(MIB, length - offset), stamp))


def difference(found: Bytes, expected: Bytes, offset: int = 0) -> str | None:
    """None if both are the same, else in words where they begin to differ; `offset` is their place in the image."""
    if found == expected:
        return None
    if len(found) != len(expected):
        return f"{len(found)} bytes instead of {len(expected)}"
    for at in range(0, len(found), BLOCK_BYTES):
        ours, theirs = found[at : at + BLOCK_BYTES], expected[at : at + BLOCK_BYTES]
        if ours != theirs:
            return f"at {offset + at}: {describe(ours)} instead of {describe(theirs)}"
    return "a difference that comes and goes"


def describe(data: Bytes) -> str:
    """What a block says it is."""
    if not any(bytes(data)):
        return f"{len(data)} zeros"
    if len(data) < RECORD.size:
        return bytes(data).hex()
    magic, image, offset, stamp = RECORD.unpack(bytes(data[: RECORD.size]))
    if magic != MAGIC:
        return f"no pattern ({bytes(data[:16]).hex()}…)"
    torn = "" if bytes(data) == block(image, offset, stamp)[: len(data)] else "torn "
    return f"{torn}block of image {image} offset {offset} stamp {stamp}"


@contextmanager
def mapped(path: Path) -> Iterator[memoryview]:
    """The file's bytes, not copied; they are unmapped with the last view of them."""
    with path.open("rb") as file:
        yield memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def assert_same_file(found: Path, expected: Path) -> None:
    """Both files hold the same bytes."""
    with mapped(found) as ours, mapped(expected) as theirs:
        assert difference(ours, theirs) is None


def sparse_file(path: Path, length: int) -> None:
    """Make the file one hole of `length` bytes."""
    path.touch()
    os.truncate(path, length)
