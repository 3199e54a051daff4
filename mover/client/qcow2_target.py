"""A download's qcow2 file, written as it is: where each cluster stands is known from the extents.

Its tables are written last, when the file says by its holes which data were zeros. Until then it is no qcow2 file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from mover.client.clusters import CLUSTER_BYTES, Content, Positions
from mover.client.clusters import Run as Clusters
from mover.client.errors import LocalError
from mover.client.file_target import FileWriter, PartTarget, seek, write_exactly
from mover.client.plan import Run
from mover.client.qcow2 import Layout, TooLargeError
from mover.client.target import Writer


class Qcow2Target(PartTarget):
    """A qcow2 file of clusters of 64 KiB, with one for each that has data; a disk ends with a sector of 512 bytes."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._layout: Layout
        self._positions: Positions

    def open(self, size_bytes: int, runs: Sequence[Run], resume: bool) -> None:
        """A file of holes, or what was left of one: the same runs have the same places."""
        content = Content(clusters_under(runs), [])
        try:
            self._layout = Layout.plan(size_bytes, content, None)
        except TooLargeError as error:
            raise LocalError(self._part.path, "making", str(error), "use --format raw") from error
        self._positions = Positions(content.data)
        self._part.make(self._layout.file_bytes, resume)

    def writer(self, buffer_bytes: int) -> Writer:
        """Writes at once: the page cache is the queue."""
        return FileWriter(self._part.path, self._part.fd, buffer_bytes, fresh=True, place=self._place)

    def _place(self, offset: int) -> int:
        """Where in the file the image's byte at `offset` is; all of a run of data lies in a row."""
        return self._layout.place(self._positions.of(offset // CLUSTER_BYTES)) + offset % CLUSTER_BYTES

    def commit(self) -> None:
        """Write the tables, then rename it."""
        self.sync()  # there have been file systems that took what they had not written yet for holes
        at = 0
        for piece in self._layout.metadata(self._holes()):
            write_exactly(self._part.path, self._part.fd, at, memoryview(piece))
            at += len(piece)
        self._part.commit()

    def _holes(self) -> list[Clusters]:
        """Clusters that were planned and have nothing in them, by their positions."""
        found = []
        at, end = self._layout.place(0), self._layout.file_bytes
        while at < end:
            data = seek(self._part.path, self._part.fd, at, os.SEEK_DATA, end)
            first, upto = -(-at // CLUSTER_BYTES), data // CLUSTER_BYTES
            if upto > first:
                found.append(Clusters(first - self._layout.data_at, upto - first))
            at = seek(self._part.path, self._part.fd, data, os.SEEK_HOLE, end) if data < end else end
        return found


def clusters_under(runs: Iterable[Run]) -> list[Clusters]:
    """The clusters that runs of data touch, neighbours joined."""
    found: list[Clusters] = []
    for run in runs:
        first, end = run.offset // CLUSTER_BYTES, -(-run.end // CLUSTER_BYTES)
        if found and first <= found[-1].end:
            found[-1] = Clusters(found[-1].first, end - found[-1].first)
        else:
            found.append(Clusters(first, end - first))
    return found
