"""qcow2 files whose every byte has its place before the first one is written: downloads, and those of repositories.

    | header | refcount table | refcount blocks | L1 | L2 tables | data clusters, in the disk's order |

Version 3, clusters of 64 KiB, no compression, no snapshots. What a file holds (its Content), the size of its disk and
the name of its backing file say all of its metadata; so they are compared byte for byte when it is verified, and made
again when a backing file gets another name. The header's names fit its first sector, which is written at once.
QEMU's docs/interop/qcow2.txt is the format.

Data that turns out to be zeros needs no cluster: what was planned for it stays a hole of the file, free in the
refcounts and in no table (`holes`).
"""

from __future__ import annotations

import struct
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mover.client.clusters import CLUSTER_BYTES, Content, Run, clusters_of

SECTOR_BYTES = 512
MAGIC = 0x514649FB
VERSION = 3
CLUSTER_BITS = 16
REFCOUNT_ORDER = 4  # 1 << 4 bits each
# magic … snapshots_offset, incompatible, compatible, autoclear, refcount_order, header_length
HEADER = struct.Struct(">IIQIIQIIQQIIQQQQII")
EXTENSION = struct.Struct(">II")
BACKING_FORMAT = 0xE2792ACA
END_OF_EXTENSIONS = 0

ENTRY_BYTES = 8
REFCOUNT_BYTES = 2
L2_ENTRIES = CLUSTER_BYTES // ENTRY_BYTES
BLOCK_REFCOUNTS = CLUSTER_BYTES // REFCOUNT_BYTES
COPIED = 1 << 63
READS_AS_ZEROS = 1
# The entries at most of an L1 table that qemu opens: 32 MiB of them.
MOST_L1_ENTRIES = 32 * 1024 * 1024 // ENTRY_BYTES


class TooLargeError(Exception):
    """No qcow2 file with clusters of 64 KiB can be so large."""


@dataclass(frozen=True)
class Layout:
    """A file that holds `content` of a disk of `size_bytes`, over the file named `backing` if it is not None.

    `*_at` are places in the file, in clusters.
    """

    size_bytes: int
    content: Content
    backing: str | None
    table_clusters: int
    block_clusters: int
    l1_entries: int
    tables: list[int]
    """The numbers of the L2 tables that there are, in order."""

    @classmethod
    def plan(cls, size_bytes: int, content: Content, backing: str | None) -> Layout:
        """Raises TooLargeError."""
        l1_entries = -(-clusters_of(size_bytes) // L2_ENTRIES)
        if l1_entries > MOST_L1_ENTRIES:
            raise TooLargeError(f"a disk of {size_bytes} bytes is more than qcow2 can hold")
        tables = sorted({n for run in (*content.data, *content.zero) for n in _tables_of(run.first, run.end)})
        fixed = 1 + _clusters(l1_entries * ENTRY_BYTES) + len(tables) + content.data_clusters
        table_clusters = block_clusters = 1
        while True:  # refcounts count themselves
            blocks = -(-(fixed + table_clusters + block_clusters) // BLOCK_REFCOUNTS)
            needed = _clusters(blocks * ENTRY_BYTES)
            if (needed, blocks) == (table_clusters, block_clusters):
                return cls(size_bytes, content, backing, table_clusters, block_clusters, l1_entries, tables)
            table_clusters, block_clusters = needed, blocks

    @property
    def blocks_at(self) -> int:
        """The first refcount block."""
        return 1 + self.table_clusters

    @property
    def l1_at(self) -> int:
        """The L1 table."""
        return self.blocks_at + self.block_clusters

    @property
    def tables_at(self) -> int:
        """The first L2 table."""
        return self.l1_at + _clusters(self.l1_entries * ENTRY_BYTES)

    @property
    def data_at(self) -> int:
        """The first cluster of data."""
        return self.tables_at + len(self.tables)

    @property
    def file_bytes(self) -> int:
        """How long the file is."""
        return (self.data_at + self.content.data_clusters) * CLUSTER_BYTES

    def place(self, position: int) -> int:
        """The offset in the file of the data cluster of this position."""
        return (self.data_at + position) * CLUSTER_BYTES

    def header(self) -> bytes:
        """The first sector: all that names other files."""
        return header(self)

    def metadata(self, holes: Sequence[Run] = ()) -> Iterator[bytes]:
        """All that stands before the data, in pieces of whole clusters.

        `holes` are data clusters that are zeros, by their positions, in order; neighbours are joined.
        """
        yield _padded(self.header())
        blocks = [(self.blocks_at + number) * CLUSTER_BYTES for number in range(self.block_clusters)]
        yield _padded(_big_endian("Q", blocks))
        yield from self._refcounts(holes)
        yield _padded(self._l1())
        yield from self._l2(holes)

    def _refcounts(self, holes: Sequence[Run]) -> Iterator[bytes]:
        clusters = self.file_bytes // CLUSTER_BYTES
        free = deque(Run(self.data_at + hole.first, hole.clusters) for hole in holes)
        for first in range(0, self.block_clusters * BLOCK_REFCOUNTS, BLOCK_REFCOUNTS):
            counts = array("H", [1]) * min(BLOCK_REFCOUNTS, clusters - first)
            end = first + len(counts)
            while free and free[0].first < end:
                begin, upto = max(free[0].first, first), min(free[0].end, end)
                counts[begin - first : upto - first] = array("H", [0]) * (upto - begin)
                if free[0].end > end:
                    break
                free.popleft()
            yield _padded(_big_endian("H", counts))

    def _l1(self) -> bytes:
        entries = array("Q", bytes(self.l1_entries * ENTRY_BYTES))
        for number, table in enumerate(self.tables):
            entries[table] = (self.tables_at + number) * CLUSTER_BYTES | COPIED
        return _big_endian("Q", entries)

    def _l2(self, holes: Sequence[Run]) -> Iterator[bytes]:
        mapped = deque(self._mapped(holes))
        for table in self.tables:
            entries = array("Q", bytes(CLUSTER_BYTES))
            while mapped and mapped[0][0] // L2_ENTRIES == table:
                first, end, value = mapped.popleft()
                within = slice(first - table * L2_ENTRIES, end - table * L2_ENTRIES)
                step = CLUSTER_BYTES if value != READS_AS_ZEROS else 0
                entries[within] = _sequence(value, step, end - first)
            yield _big_endian("Q", entries)

    def _mapped(self, holes: Sequence[Run]) -> Iterator[tuple[int, int, int]]:
        """Clusters [first, end) of the disk, within one L2 table each, in order, with the first one's entry."""
        data = ((run, position) for run, position in self._present(holes))
        zero = ((run, -1) for run in self.content.zero)
        for run, position in sorted([*data, *zero]):
            for first, end in _within_tables(run.first, run.end):
                yield first, end, READS_AS_ZEROS if position < 0 else self.place(position + first - run.first) | COPIED

    def _present(self, holes: Sequence[Run]) -> Iterator[tuple[Run, int]]:
        """The clusters of data that are no holes, with the first one's position."""
        left = deque(holes)
        before = 0
        for run in self.content.data:
            at, end = before, before + run.clusters
            while left and left[0].first < end:
                hole = left[0]
                if hole.first > at:
                    yield Run(run.first + at - before, hole.first - at), at
                at = min(hole.end, end)
                if hole.end > end:
                    break
                left.popleft()
            if at < end:
                yield Run(run.first + at - before, end - at), at
            before = end


def header(layout: Layout) -> bytes:
    """The header, its extensions and the backing file's name; ValueError if they do not fit a sector."""
    extensions, name = b"", (layout.backing or "").encode()
    if name:
        extensions = EXTENSION.pack(BACKING_FORMAT, len(b"qcow2")) + b"qcow2".ljust(8, b"\0")
    extensions += EXTENSION.pack(END_OF_EXTENSIONS, 0)
    name_at = HEADER.size + len(extensions) if name else 0
    fields = HEADER.pack(
        MAGIC, VERSION, name_at, len(name), CLUSTER_BITS, _whole_sectors(layout.size_bytes), 0,
        layout.l1_entries, layout.l1_at * CLUSTER_BYTES, CLUSTER_BYTES, layout.table_clusters,
        0, 0, 0, 0, 0, REFCOUNT_ORDER, HEADER.size,
    )  # fmt: skip
    found = fields + extensions + name
    if len(found) > SECTOR_BYTES:
        raise ValueError(f"the backing file's name {layout.backing!r} is too long")
    return found.ljust(SECTOR_BYTES, b"\0")


def _whole_sectors(size_bytes: int) -> int:
    """qemu counts a disk in sectors: of an odd size it would lose the end."""
    return -(-size_bytes // SECTOR_BYTES) * SECTOR_BYTES


def _tables_of(first: int, end: int) -> range:
    return range(first // L2_ENTRIES, (end - 1) // L2_ENTRIES + 1)


def _within_tables(first: int, end: int) -> Iterator[tuple[int, int]]:
    """[first, end) cut where one L2 table ends and the next begins."""
    while first < end:
        upto = min(end, (first // L2_ENTRIES + 1) * L2_ENTRIES)
        yield first, upto
        first = upto


def _sequence(value: int, step: int, count: int) -> array[int]:
    return array("Q", range(value, value + count * step, step)) if step else array("Q", [value]) * count


def _clusters(length_bytes: int) -> int:
    return -(-length_bytes // CLUSTER_BYTES)


def _padded(data: bytes) -> bytes:
    return data.ljust(_clusters(len(data)) * CLUSTER_BYTES, b"\0")


def _big_endian(kind: str, values: list[int] | array[int]) -> bytes:
    numbers = array(kind, values)
    if struct.pack("=H", 1) == struct.pack("<H", 1):
        numbers.byteswap()
    return numbers.tobytes()
