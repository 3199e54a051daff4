"""Old points go: the oldest that is kept becomes a full one, made of its chain, and what came before is removed.

    before   1 full  ◄─ 2 ◄─ 3 ◄─ 4 ◄─ 5                keep 3
    1        1 full  ◄─ 2 ◄─ 3 ◄─ 4 ◄─ 5     3.merged (not listed), every cluster compared with its digest
    2        1 full  ◄─ 2    3.merged ◄─ 4 ◄─ 5         one rename of the manifest of 3; 4's header still names the old
                                                        file of 3, which is there: both are the same disk
    3        the header of 4 names 3.merged             one sector; both files are there before and after
    4        the manifests of 2, then 1 go              the newest first: what is listed has its parents
    5        the files that no manifest names go        by the sweep, which does 3 and 5 again after a crash

Killed between any two of these, every point that is listed restores, with Mover and with qemu-img; what was to go and
is still listed restores as well, until it is pruned again.
"""

from __future__ import annotations

import calendar
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from mover.backup.clusters import Segment, held
from mover.backup.digests import blkhash_of_data, load
from mover.backup.manifest import Blkhash, Manifest, extents_of
from mover.backup.names import file_names, new_name
from mover.backup.parallel import Work, in_threads, new_buffer
from mover.backup.point_writer import PointWriter, new_point
from mover.backup.reader import PIECE_BYTES, PointReader
from mover.backup.repository import Disk
from mover.backup.taking import storing_failed
from mover.client.clusters import Positions
from mover.client.progress import OnProgress, Tally
from mover.client.qcow2 import Layout

TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Keep:
    """What stays: the newest `points`, or those not older than `age_s`; the newest one always."""

    points: int | None = None
    age_s: float | None = None

    def kept(self, points: Sequence[Manifest], now_s: float) -> list[Manifest]:
        """Of points in order, the last ones."""
        number = len(points) if self.points is None else self.points
        if self.age_s is not None:
            begins = [calendar.timegm(time.strptime(each.time, TIME)) for each in points]
            number = min(number, sum(begin >= now_s - self.age_s for begin in begins))
        return list(points[-max(1, number) :])


@dataclass(frozen=True)
class Pruned:
    """The numbers of the points that have gone, and of the one that became a full one, if one did.

    `swept` are files that a run had left which was killed.
    """

    gone: list[int]
    merged: int | None
    swept: list[str] = field(default_factory=list)


def prune(disk: Disk, keep: Keep, now_s: float | None = None, progress: OnProgress | None = None) -> Pruned:
    """Remove what `keep` does not keep. `now_s`, seconds since 1970, is the clock's time if it is left out.

    Raises DamagedError before anything is removed that a point needs; BusyError, RepositoryError.
    """
    with disk.alone("prune") as swept:
        points = disk.points()
        kept = keep.kept(points, time.time() if now_s is None else now_s)
        gone = points[: len(points) - len(kept)]
        if not gone:
            return Pruned([], None, swept)
        oldest = kept[0]
        merges = oldest.parent is not None
        if merges:
            _merge(disk, oldest, Tally(progress))
            disk.sweep()
        disk.withdraw(gone)
        disk.sweep()
        return Pruned([each.point for each in gone], oldest.point if merges else None, swept)


def _merge(disk: Disk, oldest: Manifest, tally: Tally) -> None:
    """Steps 1 and 2: the point becomes one without a parent."""
    file, digests = file_names(oldest.point, merged=True)
    new_file, new_digests = disk.file(new_name(file)), disk.file(new_name(digests))
    with PointReader(disk, disk.chain(oldest.point)) as reader:
        content = held(reader.segments)
        layout = Layout.plan(oldest.size_bytes, content, None)
        try:
            with new_point(new_file, new_digests, layout) as writer:
                positions = Positions(content.data)
                pieces = [piece for piece in reader.pieces() if piece.layer is not None]
                tally.set(phase="data", size=oldest.size_bytes, data=reader.data_bytes)
                in_threads(pieces, lambda: _copying(reader, writer, positions), tally)
                writer.sync()
                merged = msgspec.structs.replace(
                    oldest,
                    kind="merged",
                    parent=None,
                    bitmap=None,
                    file=file,
                    file_bytes=layout.file_bytes,
                    digests=digests,
                    data=extents_of(content.data, oldest.size_bytes),
                    zero=[],
                    data_blkhash=Blkhash(blkhash_of_data(load(new_digests, content.data_clusters))),
                )
                disk.publish(merged)
        except OSError as error:
            raise storing_failed(disk, error) from error


def _copying(reader: PointReader, writer: PointWriter, positions: Positions) -> Work[Segment]:
    buffer = new_buffer(PIECE_BYTES)

    def work(piece: Segment) -> int:
        view, digests = reader.read(piece, buffer)
        writer.write(positions.of(piece.first), view, digests)
        return len(view)

    return work
