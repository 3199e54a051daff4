"""The checksum of an image, made while its bytes pass: the hash over the hashes of its blocks, as servers have it.

image     |  data  |      zero       |  data  | hole |tail|
blocks    |  0  |  1  |  2  |  3  |  4  |  5  |   6   | 7|      block_bytes each, but for the last one
hashed       h     h     z     z     h     h      h     h       z: known beforehand
outer     h(h0 + h1 + z + z + h4 + ...)
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import Protocol

from mover.client.zeros import SLAB

BLAKE2_DIGEST_BYTES = 32


class Hash(Protocol):
    """What hashlib makes."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take in more."""

    def digest(self) -> bytes:
        """The digest of all."""

    def hexdigest(self) -> str:
        """The same in hexadecimal."""


NewHash = Callable[[], Hash]


def new_hash(algorithm: str) -> NewHash:
    """The constructor of `algorithm`'s hashes. Raises ValueError for one that is not there."""
    if algorithm in ("blake2b", "blake2s"):
        blake2: Callable[..., Hash] = getattr(hashlib, algorithm)
        return lambda: blake2(digest_size=BLAKE2_DIGEST_BYTES)
    if not hashlib.new(algorithm).digest_size:
        raise ValueError(f"a digest of {algorithm} has no length of its own")
    return lambda: hashlib.new(algorithm)


class BlockHashes:
    """The digests of an image's blocks, as workers hand them in; those nobody hands in are zeros'."""

    def __init__(self, size_bytes: int, algorithm: str, block_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.algorithm = algorithm
        self.block_bytes = block_bytes
        self._new = new_hash(algorithm)
        self._digests: dict[int, bytes] = {}
        self._lock = threading.Lock()

    def new(self) -> Hash:
        """A hash for one block."""
        return self._new()

    def hand_in(self, block: int, digest: bytes) -> None:
        """The digest of a block; from any thread."""
        with self._lock:
            self._digests[block] = digest

    def hexdigest(self) -> str:
        """The image's checksum."""
        outer = self._new()
        whole, rest = divmod(self.size_bytes, self.block_bytes)
        of_zeros = self._of_zeros(self.block_bytes)
        for block in range(whole):
            outer.update(self._digests.get(block, of_zeros))
        if rest:
            outer.update(self._digests[whole] if whole in self._digests else self._of_zeros(rest))
        return outer.hexdigest()

    def _of_zeros(self, length: int) -> bytes:
        one = self._new()
        _update_zeros(one, length)
        return one.digest()


class Hasher:
    """One worker's: bytes are fed in the order of the image, and what is left out between is zeros."""

    def __init__(self, hashes: BlockHashes) -> None:
        self._hashes = hashes
        self._block_bytes = hashes.block_bytes
        self._hash: Hash | None = None
        self._block = 0
        self._at = 0  # in the image: all of the block before it is hashed

    def feed(self, offset: int, view: memoryview) -> None:
        """Take in the bytes at `offset`, which is not before the end of what was fed last, but for `finish`."""
        while len(view):
            block = offset // self._block_bytes
            if self._hash is None or block != self._block:
                self.finish()
                self._hash, self._block, self._at = self._hashes.new(), block, block * self._block_bytes
            end = (block + 1) * self._block_bytes
            part = view[: end - offset]
            _update_zeros(self._hash, offset - self._at)
            self._hash.update(part)
            self._at = offset = offset + len(part)
            view = view[len(part) :]

    def finish(self) -> None:
        """The block that was fed last is whole: the rest of it is zeros."""
        if self._hash is not None:
            end = min((self._block + 1) * self._block_bytes, self._hashes.size_bytes)
            _update_zeros(self._hash, end - self._at)
            self._hashes.hand_in(self._block, self._hash.digest())
            self._hash = None


def _update_zeros(hashed: Hash, length: int) -> None:
    while length > 0:
        hashed.update(SLAB[: min(length, len(SLAB))])
        length -= len(SLAB)
