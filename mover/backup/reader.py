"""A point in time read from its chain: every cluster is compared with its digest before anybody gets to see it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from types import TracebackType

from mover.backup.clusters import Segment, cut, overlay
from mover.backup.digests import DIGEST_BYTES, Digests, blkhash_of_data, blkhash_of_disk, digests_of, load
from mover.backup.errors import Damage, DamagedError
from mover.backup.files import open_file, pread_into
from mover.backup.manifest import Manifest
from mover.backup.repository import Disk
from mover.client.clusters import CLUSTER_BYTES
from mover.client.qcow2 import Layout

PIECE_BYTES = 4 * 1024 * 1024
PIECE_CLUSTERS = PIECE_BYTES // CLUSTER_BYTES


class Layer:
    """One file of a chain, open for reading. Raises DamagedError where it is not there or has another length."""

    def __init__(self, disk: Disk, manifest: Manifest, parent: Manifest | None) -> None:
        self._disk = disk
        self.manifest = manifest
        self.content = manifest.content
        self.layout = Layout.plan(manifest.size_bytes, self.content, parent.file if parent is not None else None)
        self.digests = self._load_digests()
        self.fd = self._open()

    def _load_digests(self) -> Digests:
        name = self.manifest.digests
        try:
            found = load(self._disk.file(name), self.content.data_clusters)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise DamagedError(self._disk.name, [Damage(name, 0, 0, None, why)]) from error
        if blkhash_of_data(found) != self.manifest.data_blkhash.checksum:
            raise DamagedError(self._disk.name, [Damage(name, 0, 0, None, "its digests are not those of the manifest")])
        return found

    def _open(self) -> int:
        name = self.manifest.file
        try:
            fd = open_file(self._disk.file(name))
        except OSError as error:
            raise DamagedError(self._disk.name, [Damage(name, 0, 0, None, error.strerror or str(error))]) from error
        length = os.fstat(fd).st_size
        if length == self.manifest.file_bytes == self.layout.file_bytes:
            return fd
        os.close(fd)
        why = f"it has {length} bytes instead of {self.manifest.file_bytes}"
        raise DamagedError(self._disk.name, [Damage(name, 0, 0, None, why)])

    def close(self) -> None:
        """No more reading."""
        os.close(self.fd)

    def read(self, first: int, position: int, view: memoryview) -> tuple[list[bytes], list[Damage]]:
        """Fill `view` with the data at `position`, which stands at the disk's cluster `first`.

        Returns the digests of its clusters, and what is not as it was. Raises OSError.
        """
        place = self.layout.place(position)
        found = pread_into(self.fd, view, place)
        digests, damages = digests_of(view), []
        for number, made in enumerate(digests):
            at = number * CLUSTER_BYTES
            length = min(CLUSTER_BYTES, len(view) - at)
            wanted = self.digests[(position + number) * DIGEST_BYTES : (position + number + 1) * DIGEST_BYTES]
            if at + length > found or made != wanted:
                damages.append(self.damage(place + at, length, first * CLUSTER_BYTES + at))
        return digests, damages

    def damage(self, offset: int, length: int, disk_offset: int | None) -> Damage:
        """A range of this file is not what it was."""
        what = "its digest is another" if disk_offset is not None else "it is not what the manifest makes it"
        return Damage(self.manifest.file, offset, length, disk_offset, what)


class PointReader:
    """A point of a disk, open for reading; the disk is locked by the caller. A context manager.

    Raises DamagedError if the digests do not make the blkhash that the manifest has.
    """

    def __init__(self, disk: Disk, chain: Sequence[Manifest]) -> None:
        self._disk = disk
        self.manifest = chain[-1]
        self.layers: list[Layer] = []
        try:
            for number, manifest in enumerate(chain):
                self.layers.append(Layer(disk, manifest, chain[number - 1] if number else None))
            self.segments = overlay(
                [(layer.content, layer.manifest.size_bytes) for layer in self.layers], self.manifest.size_bytes
            )
            self._check_blkhash()
        except BaseException:
            self.close()
            raise

    def _check_blkhash(self) -> None:
        found = blkhash_of_disk(self.manifest.size_bytes, self.segments, [layer.digests for layer in self.layers])
        if found != self.manifest.blkhash.checksum:
            why = f"the chain's blkhash is {found}, and the manifest's {self.manifest.blkhash.checksum}"
            raise DamagedError(self._disk.name, [Damage(self.manifest.file, 0, 0, None, why)])

    def __enter__(self) -> PointReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """No more reading."""
        for layer in self.layers:
            layer.close()

    @property
    def data_bytes(self) -> int:
        """How many bytes of the point are data."""
        return sum(self.length(segment) for segment in self.segments if segment.layer is not None)

    def pieces(self) -> Iterator[Segment]:
        """All of the disk, in order: data in pieces of PIECE_BYTES at most, zeros as long as they are."""
        for segment in self.segments:
            if segment.layer is None:
                yield segment
            else:
                yield from cut([segment], PIECE_CLUSTERS)

    def length(self, segment: Segment) -> int:
        """The bytes of a segment: of the last cluster only as much as the disk has."""
        end = (segment.first + segment.clusters) * CLUSTER_BYTES
        return min(end, self.manifest.size_bytes) - segment.first * CLUSTER_BYTES

    def read(self, segment: Segment, buffer: memoryview) -> tuple[memoryview, list[bytes]]:
        """The data of a piece, in `buffer`, and the digests of its clusters. Raises DamagedError, OSError."""
        assert segment.layer is not None, "zeros are not read"
        view = buffer[: self.length(segment)]
        digests, damages = self.layers[segment.layer].read(segment.first, segment.position, view)
        if damages:
            raise DamagedError(self._disk.name, damages)
        return view, digests
