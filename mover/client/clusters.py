"""Clusters of 64 KiB: what a qcow2 file holds of a disk, in runs of them."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

CLUSTER_BYTES = 64 * 1024


class Run(NamedTuple):
    """Clusters in a row."""

    first: int
    clusters: int

    @property
    def end(self) -> int:
        """The first one after it."""
        return self.first + self.clusters


@dataclass(frozen=True)
class Content:
    """What one file holds, in clusters: `data` and `zero`, each sorted, disjoint, and with neighbours joined."""

    data: list[Run]
    zero: list[Run]

    @property
    def data_clusters(self) -> int:
        """How many clusters of data."""
        return sum(run.clusters for run in self.data)


def clusters_of(size_bytes: int) -> int:
    """How many clusters a disk of `size_bytes` has; the last one may be short."""
    return -(-size_bytes // CLUSTER_BYTES)


class Positions:
    """Where each cluster of `runs` stands among all of them."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._firsts = [run.first for run in runs]
        self._before = list(accumulate((run.clusters for run in runs), initial=0))

    def of(self, cluster: int) -> int:
        """The cluster's position; it must be one of them."""
        number = bisect.bisect_right(self._firsts, cluster) - 1
        return self._before[number] + cluster - self._firsts[number]
