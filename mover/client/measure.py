"""What a download of an image takes: bytes on the wire, and in the file it makes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mover.client.extents import Extent

# qemu-img's defaults for a new qcow2 file.
CLUSTER_BYTES = 64 * 1024
ENTRY_BYTES = 8
REFCOUNT_BYTES = 2


@dataclass(frozen=True)
class Measure:
    """In bytes. `required` is what a file takes that holds the image's data, `fully_allocated` if all of it is."""

    size: int
    data: int
    required: int
    fully_allocated: int


def measure(extents: Iterable[Extent], image_format: str) -> Measure:
    """For a raw or qcow2 file, as qemu-img measures them."""
    size = data = clusters = 0
    last = -1
    for extent in extents:
        size = extent.end
        if not extent.zero:
            data += extent.length
            first, end = extent.start // CLUSTER_BYTES, -(-extent.end // CLUSTER_BYTES)
            clusters += end - max(first, last)
            last = end
    if image_format == "raw":
        return Measure(size, data, data, size)
    whole = _round(size, CLUSTER_BYTES)
    metadata = _metadata(whole)
    return Measure(size, data, metadata + clusters * CLUSTER_BYTES, metadata + whole)


def _metadata(whole: int) -> int:
    """Header, both levels of tables and refcounts of a qcow2 file whose clusters are all there."""
    second = _round(_round(whole // CLUSTER_BYTES, CLUSTER_BYTES // ENTRY_BYTES) * ENTRY_BYTES, CLUSTER_BYTES)
    first = _round(second // CLUSTER_BYTES * ENTRY_BYTES, CLUSTER_BYTES)
    tables = CLUSTER_BYTES + second + first
    counted = (whole + tables) // CLUSTER_BYTES
    blocks = table = 0
    # Refcounts are counted themselves.
    while True:
        clusters = counted + blocks + table
        needed = -(-clusters * REFCOUNT_BYTES // CLUSTER_BYTES)
        if (needed, -(-needed * ENTRY_BYTES // CLUSTER_BYTES)) == (blocks, table):
            return tables + (blocks + table) * CLUSTER_BYTES
        blocks, table = needed, -(-needed * ENTRY_BYTES // CLUSTER_BYTES)


def _round(count: int, unit: int) -> int:
    return -(-count // unit) * unit
