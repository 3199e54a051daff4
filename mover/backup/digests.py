"""Digests of clusters, and what is made of them: the blkhash of a whole disk and of one file's own data.

A blkhash is a hash over the hashes of blocks, as imageio and `GET …/checksum` have it. The blocks of the repository's
are its clusters of 64 KiB, smaller than a server offers: an incremental then makes the new one of the digests that the
chain has and those of the clusters it has read, without reading anything else. The last block may be short.

The digests of a file's data stand beside it, 32 bytes each, in the order of the data.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from mover.backup.clusters import Segment
from mover.backup.files import open_file
from mover.client.clusters import CLUSTER_BYTES

ALGORITHM = "blake2b"
DIGEST_BYTES = 32
# Zeros are hashed so many digests at a time: an empty disk of 1 TiB has 16 million.
SLAB_DIGESTS = 4096

Digests = memoryview | bytes


def digest(block: memoryview | bytes) -> bytes:
    """The digest of one cluster, or of less at the disk's end."""
    return hashlib.blake2b(block, digest_size=DIGEST_BYTES).digest()


ZERO_DIGEST = digest(bytes(CLUSTER_BYTES))
_SLAB = ZERO_DIGEST * SLAB_DIGESTS


def digests_of(data: memoryview) -> list[bytes]:
    """The digests of the clusters in `data`, the last of which may be short."""
    return [digest(data[at : at + CLUSTER_BYTES]) for at in range(0, len(data), CLUSTER_BYTES)]


def is_zero(found: bytes, length: int) -> bool:
    """Whether a cluster of `length` bytes with this digest is all zeros: nothing else has that digest."""
    return found == (ZERO_DIGEST if length == CLUSTER_BYTES else digest(bytes(length)))


def load(path: Path, count: int) -> Digests:
    """The `count` digests in the file, not copied. Raises OSError; ValueError if the file has another length."""
    with os.fdopen(open_file(path), "rb") as file:
        length = file.seek(0, 2)
        if length != count * DIGEST_BYTES:
            raise ValueError(f"it has {length} bytes instead of {count * DIGEST_BYTES}")
        return memoryview(mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ)) if length else b""


def blkhash_of_disk(size_bytes: int, segments: Iterable[Segment], layers: Sequence[Digests]) -> str:
    """The blkhash of a disk, in hexadecimal; `segments` are all of it, in order, and `layers` the digests of each."""
    outer = hashlib.blake2b(digest_size=DIGEST_BYTES)
    short = size_bytes % CLUSTER_BYTES
    last = size_bytes // CLUSTER_BYTES
    for first, count, layer, position in segments:
        if layer is not None:
            outer.update(layers[layer][position * DIGEST_BYTES : (position + count) * DIGEST_BYTES])
        else:
            with_short = bool(short) and first + count > last
            _update_with_zeros(outer, count - with_short)
            if with_short:
                outer.update(digest(bytes(short)))
    return outer.hexdigest()


def blkhash_of_data(digests: Digests) -> str:
    """The blkhash of a file's own data, in hexadecimal."""
    return hashlib.blake2b(digests, digest_size=DIGEST_BYTES).hexdigest()


def _update_with_zeros(outer: hashlib.blake2b, count: int) -> None:
    for _ in range(count // SLAB_DIGESTS):
        outer.update(_SLAB)
    outer.update(_SLAB[: count % SLAB_DIGESTS * DIGEST_BYTES])
