"""Everything of a disk's points read back, and each byte that is not what it was, named.

A file's metadata is made anew from its manifest and compared; its data is compared with its digests; those make up the
blkhash of the file and of every point, which stand in the manifest; and that has its seal.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from mover.backup.clusters import Segment, cut, overlay
from mover.backup.errors import Damage, DamagedError
from mover.backup.files import pread_into
from mover.backup.manifest import Manifest
from mover.backup.names import file_names
from mover.backup.parallel import Work, in_threads, new_buffer
from mover.backup.reader import PIECE_BYTES, PIECE_CLUSTERS, Layer, PointReader
from mover.backup.repository import Disk
from mover.client.clusters import CLUSTER_BYTES
from mover.client.progress import OnProgress, Tally
from mover.client.qcow2 import Layout

ZEROS = bytes(CLUSTER_BYTES)


def verify(disk: Disk, point: int | None = None, progress: OnProgress | None = None) -> list[Damage]:
    """What is damaged of a disk, or of the chain of one point; nothing if all is as it was.

    Raises NoSuchPoint, BusyError, OSError.
    """
    with disk.reading():
        survey = disk.survey()
        try:
            chosen = survey.points if point is None else disk.chain(point)
        except DamagedError as error:
            return error.damages
        found = [] if point is not None else survey.damages
        return found + _damages(disk, survey.points, chosen, Tally(progress))


def _damages(disk: Disk, points: list[Manifest], chosen: list[Manifest], tally: Tally) -> list[Damage]:
    found: list[Damage] = []
    by_number = {manifest.point: manifest for manifest in points}
    data = sum(manifest.data_bytes for manifest in chosen)
    tally.set(phase="data", size=data, data=data)
    for manifest in chosen:
        parent = by_number.get(manifest.parent) if manifest.parent is not None else None
        if manifest.parent is not None and parent is None:
            continue  # the survey has named the manifest that is missing
        try:
            with ExitStack() as stack:
                layer = Layer(disk, manifest, parent)
                stack.callback(layer.close)
                found += _metadata_damages(layer, parent)
                found += _data_damages(layer, tally)
            PointReader(disk, disk.chain(manifest.point)).close()
        except DamagedError as error:
            found += [damage for damage in error.damages if damage not in found]
    return found


def _metadata_damages(layer: Layer, parent: Manifest | None) -> Iterator[Damage]:
    """Clusters before the data that are not what the manifest makes them."""
    at = 0
    for wanted in layer.layout.metadata():
        buffer = bytearray(len(wanted))
        pread_into(layer.fd, memoryview(buffer), at)
        for start in range(0, len(wanted), CLUSTER_BYTES):
            same = buffer[start : start + CLUSTER_BYTES] == wanted[start : start + CLUSTER_BYTES]
            if not same and not (at == 0 and _names_old_file(layer, parent, buffer)):
                yield layer.damage(at + start, CLUSTER_BYTES, None)
        at += len(wanted)


def _names_old_file(layer: Layer, parent: Manifest | None, found: bytearray) -> bool:
    """The header is right, but names the file that its parent had before it was merged: a prune was killed there."""
    if parent is None or parent.kind != "merged":
        return False
    before = Layout.plan(layer.manifest.size_bytes, layer.content, file_names(parent.point)[0])
    return found == next(before.metadata())


def _data_damages(layer: Layer, tally: Tally) -> list[Damage]:
    size_bytes = layer.manifest.size_bytes
    found: list[Damage] = []
    mapped = overlay([(layer.content, size_bytes)], size_bytes)
    pieces = list(cut((segment for segment in mapped if segment.layer is not None), PIECE_CLUSTERS))

    def worker() -> Work[Segment]:
        buffer = new_buffer(PIECE_BYTES)

        def work(piece: Segment) -> int:
            start = piece.first * CLUSTER_BYTES
            view = buffer[: min(piece.clusters * CLUSTER_BYTES, size_bytes - start)]
            found.extend(layer.read(piece.first, piece.position, view)[1])
            return len(view)

        return work

    in_threads(pieces, worker, tally)
    found += _padding_damages(layer)
    return sorted(found, key=lambda damage: damage.offset)


def _padding_damages(layer: Layer) -> Iterator[Damage]:
    """What stands after the disk's end in its last cluster: zeros, which no digest covers."""
    used = layer.manifest.size_bytes % CLUSTER_BYTES
    data = layer.content.data
    if not used or not data or data[-1].end * CLUSTER_BYTES <= layer.manifest.size_bytes:
        return
    buffer = memoryview(bytearray(CLUSTER_BYTES - used))
    at = layer.manifest.file_bytes - len(buffer)
    pread_into(layer.fd, buffer, at)
    if buffer != ZEROS[: len(buffer)]:
        yield layer.damage(at, len(buffer), None)
