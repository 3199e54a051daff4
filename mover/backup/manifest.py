"""The manifest of one point in time: a JSON file beside the qcow2 file that it is about.

Its seal is a digest of all the rest, so that a bit that flips in a manifest is found like one anywhere else. A point
is there when its manifest is, and which files belong to the repository is what the manifests name.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from mover.backup.digests import ALGORITHM, DIGEST_BYTES
from mover.backup.names import file_names
from mover.client.clusters import CLUSTER_BYTES, Content, Run

FORMAT = 1

Kind = Literal["full", "incremental", "merged"]
Extent = tuple[int, int]
"""Offset and length in bytes."""


class Blkhash(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A hash over the hashes of blocks of `block_bytes`."""

    checksum: str
    algorithm: str = ALGORITHM
    block_bytes: int = CLUSTER_BYTES


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One point in time of one disk. Offsets, lengths and sizes are in bytes."""

    format: int = FORMAT
    point: int
    """Its number: 1, 2, …, never given again."""
    kind: Kind
    """merged: a full that prune made of a full and incrementals."""
    time: str
    """When the backup began, UTC, as 2026-01-31T10:00:00Z."""
    tool: str
    """What made the file."""
    image: str
    """Where the disk came from."""
    size_bytes: int
    parent: int | None
    """The point that this one is changes to."""
    bitmap: str | None
    """The dirty bitmap whose changes these are, if it was named."""
    checkpoint: str | None
    """The bitmap that records what changes after this point, if it was named: the next incremental's."""
    file: str
    file_bytes: int
    digests: str
    """The file with the digests of the data's blocks, 32 bytes each, in order."""
    data: list[Extent]
    """What the file holds as data, in whole clusters (the last may be cut by the disk's end)."""
    zero: list[Extent]
    """What the file says are zeros, over whatever its parent has there."""
    blkhash: Blkhash
    """Of the whole disk at this point in time."""
    data_blkhash: Blkhash
    """Of what the file holds as data."""
    seal: str = ""

    @property
    def content(self) -> Content:
        """`data` and `zero` in clusters."""
        return Content([_run(extent) for extent in self.data], [_run(extent) for extent in self.zero])

    @property
    def data_bytes(self) -> int:
        """How many bytes of data the file holds."""
        return sum(length for _, length in self.data)

    @property
    def zero_bytes(self) -> int:
        """How many bytes the file says are zeros."""
        return sum(length for _, length in self.zero)


class FormatError(Exception):
    """What was read is not a manifest that this version understands; `damaged` if it was one and has changed."""

    def __init__(self, why: str, *, damaged: bool) -> None:
        super().__init__(why)
        self.damaged = damaged


class _Format(msgspec.Struct):
    format: int


def extents_of(runs: list[Run], size_bytes: int) -> list[Extent]:
    """Runs of clusters as a manifest has them."""
    return [
        (run.first * CLUSTER_BYTES, min(run.end * CLUSTER_BYTES, size_bytes) - run.first * CLUSTER_BYTES)
        for run in runs
    ]


def _run(extent: Extent) -> Run:
    offset, length = extent
    return Run(offset // CLUSTER_BYTES, -(-length // CLUSTER_BYTES))


def encode(manifest: Manifest) -> bytes:
    """The file's bytes, sealed."""
    sealed = msgspec.structs.replace(manifest, seal=_seal(manifest))
    return msgspec.json.encode(sealed) + b"\n"


def decode(data: bytes) -> Manifest:
    """Raises FormatError."""
    try:
        found = msgspec.json.decode(data, type=_Format)
        if found.format > FORMAT:
            raise FormatError(f"its format is {found.format}, and this version knows {FORMAT}", damaged=False)
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"no manifest: {error}", damaged=True) from error
    if encode(manifest) != data:
        raise FormatError("its seal does not fit", damaged=True)
    _check(manifest)
    return manifest


def _check(manifest: Manifest) -> None:
    """A seal says that nothing has changed, not who made it: names must not lead elsewhere, nor extents."""
    if (manifest.file, manifest.digests) != file_names(manifest.point, merged=manifest.kind == "merged"):
        raise FormatError(f"its files are not called as those of a point: {manifest.file!r}", damaged=True)
    if (manifest.parent is not None) != (manifest.kind == "incremental"):
        raise FormatError(f"it is {manifest.kind}, and its parent {manifest.parent}", damaged=True)
    end = 0
    for offset, length in sorted([*manifest.data, *manifest.zero]):
        whole = length % CLUSTER_BYTES == 0 or offset + length == manifest.size_bytes
        if offset < end or offset % CLUSTER_BYTES or length <= 0 or not whole:
            raise FormatError(f"an extent of {length} bytes at {offset}", damaged=True)
        end = offset + length
    if end > manifest.size_bytes:
        raise FormatError(f"an extent that ends at {end}, after the disk", damaged=True)


def _seal(manifest: Manifest) -> str:
    unsealed = msgspec.json.encode(msgspec.structs.replace(manifest, seal=""))
    return hashlib.blake2b(unsealed, digest_size=DIGEST_BYTES).hexdigest()
