"""Which clusters of a disk a file of the repository holds, and how the files of a chain lie over each other.

A cluster is 64 KiB of the disk, and the unit of everything here: what a qcow2 file holds, what has a digest, what an
incremental reads. A range that is dirty in part of a cluster makes the whole cluster dirty: the server has all of it
as it was at that point in time.

    extents    |  clean  | dirty, zero |dirty, data|      clean     |
    clusters   |      |      |      |      |      |      |      |   |
    content              | data | zero | data | data |                  data, since some of it is dirty and not zero
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple

from mover.client.clusters import CLUSTER_BYTES, Content, Run, clusters_of


class Change(NamedTuple):
    """One extent as the backup sees it, in bytes: whether it is to be stored, and whether it reads as zeros."""

    start: int
    length: int
    wanted: bool
    zero: bool


class Segment(NamedTuple):
    """Clusters in a row that one file of a chain provides.

    `layer` is the file's place in the chain, and `position` the first cluster's among the data of that file;
    a layer of None is zeros.
    """

    first: int
    clusters: int
    layer: int | None
    position: int


def content_of(changes: Iterable[Change]) -> Content:
    """What a file must hold so that every wanted byte is right. `changes` are in order and without gaps."""
    data: list[Run] = []
    zero: list[Run] = []
    for run, is_zero in _touched(changes):
        _append(zero if is_zero else data, run)
    return Content(data, zero)


def changes_of(listed: Iterable[Change], size_bytes: int, parent_bytes: int) -> Iterator[Change]:
    """What is wanted of a disk whose parent had another size, beside what a bitmap says (`wanted` of `listed`).

    No bitmap says that the size has changed. The cluster that the shorter of the two ends in is wanted, since it has
    another digest now; and of what is new, all that is not zeros:

        parent |          |          |    |
        disk   |          |          |          |          |
        wanted   as listed |   all    |      not zeros     |
    """
    shorter = min(size_bytes, parent_bytes)
    whole = shorter // CLUSTER_BYTES * CLUSTER_BYTES
    borders = (
        (0, whole, clusters_of(shorter) * CLUSTER_BYTES, size_bytes) if size_bytes != parent_bytes else (0, size_bytes)
    )
    for change in listed:
        for place, (start, end) in enumerate(itertools.pairwise(borders)):
            first, last = max(start, change.start), min(end, change.start + change.length)
            if first < last:
                wanted = (change.wanted, True, not change.zero)[place]
                yield Change(first, last - first, wanted, change.zero)


def _touched(changes: Iterable[Change]) -> Iterator[tuple[Run, bool]]:
    """Runs of clusters in which something is wanted, in order, and whether all of each reads as zeros."""
    cluster, wanted, zero = 0, False, True  # the cluster that extents share, and what they have said of it so far
    for change in changes:
        first, last = change.start // CLUSTER_BYTES, (change.start + change.length - 1) // CLUSTER_BYTES
        if first != cluster:
            if wanted:
                yield Run(cluster, 1), zero
            cluster, wanted, zero = first, False, True
        wanted, zero = wanted or change.wanted, zero and change.zero
        if last > first:
            if wanted:
                yield Run(first, 1), zero
            if change.wanted and last > first + 1:
                yield Run(first + 1, last - first - 1), change.zero
            cluster, wanted, zero = last, change.wanted, change.zero
    if wanted:
        yield Run(cluster, 1), zero


def _append(runs: list[Run], run: Run) -> None:
    if runs and runs[-1].end == run.first:
        runs[-1] = Run(runs[-1].first, runs[-1].clusters + run.clusters)
    else:
        runs.append(run)


def overlay(layers: list[tuple[Content, int]], size_bytes: int) -> list[Segment]:
    """The disk of `size_bytes` as its chain provides it, whole and in order.

    `layers` are the files from the oldest on, each with the size of its disk in bytes: what lies beyond the end of a
    disk is not seen through it.
    """
    found: list[Segment] = []
    gaps = [Run(0, clusters_of(size_bytes))] if size_bytes else []
    for number in range(len(layers) - 1, -1, -1):
        content, layer_bytes = layers[number]
        gaps = _clipped(gaps, clusters_of(layer_bytes), found)
        gaps = list(_fill(gaps, _provided(content, number), found))
    found += [Segment(gap.first, gap.clusters, None, 0) for gap in gaps]
    found.sort()
    return found


def _clipped(gaps: list[Run], end: int, found: list[Segment]) -> list[Run]:
    """The gaps before `end`; what is after it is zeros."""
    inside = [Run(gap.first, min(gap.clusters, end - gap.first)) for gap in gaps if gap.first < end]
    for gap in gaps:
        if gap.end > end:
            first = max(gap.first, end)
            found.append(Segment(first, gap.end - first, None, 0))
    return inside


def _provided(content: Content, layer: int) -> list[Segment]:
    """What one file provides, in order."""
    before = accumulate((run.clusters for run in content.data), initial=0)
    data = [
        Segment(run.first, run.clusters, layer, position) for run, position in zip(content.data, before, strict=False)
    ]
    zero = [Segment(run.first, run.clusters, None, 0) for run in content.zero]
    return sorted(data + zero, key=lambda segment: segment.first)


def _fill(gaps: list[Run], provided: list[Segment], found: list[Segment]) -> Iterator[Run]:
    """Puts what of `provided` lies in the gaps into `found`; what remains of the gaps."""
    ends = [segment.first + segment.clusters for segment in provided]
    for gap in gaps:
        at = gap.first
        for number in range(bisect.bisect_right(ends, at), len(provided)):
            segment = provided[number]
            if segment.first >= gap.end:
                break
            first, end = max(at, segment.first), min(gap.end, segment.first + segment.clusters)
            if first > at:
                yield Run(at, first - at)
            found.append(Segment(first, end - first, segment.layer, segment.position + first - segment.first))
            at = end
        if at < gap.end:
            yield Run(at, gap.end - at)


def held(segments: Iterable[Segment]) -> Content:
    """What one file must hold to be the whole of `segments` by itself: their data, and nothing where zeros are."""
    data: list[Run] = []
    for segment in segments:
        if segment.layer is not None:
            _append(data, Run(segment.first, segment.clusters))
    return Content(data, [])


def cut_at(segments: Iterable[Segment], every: int) -> Iterator[Segment]:
    """The same, cut wherever a multiple of `every` clusters of the disk begins."""
    for first, clusters, layer, position in segments:
        at = first
        while at < first + clusters:
            end = min(first + clusters, (at // every + 1) * every)
            yield Segment(at, end - at, layer, position + at - first if layer is not None else 0)
            at = end


def cut(segments: Iterable[Segment], most: int) -> Iterator[Segment]:
    """The same in segments of `most` clusters at most."""
    for first, count, layer, position in segments:
        for at in range(0, count, most):
            yield Segment(first + at, min(most, count - at), layer, position + at if layer is not None else 0)
