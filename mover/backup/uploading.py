"""A point in time as an image on a server again: by several connections, flushed, and what is lost written again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mover.backup.clusters import Segment
from mover.backup.errors import BackupError
from mover.backup.manifest import Manifest
from mover.backup.parallel import new_buffer
from mover.backup.reader import PIECE_BYTES, PointReader
from mover.backup.repository import Disk
from mover.client import Client
from mover.client.clusters import CLUSTER_BYTES
from mover.client.crew import MAX_WORKERS, Crew
from mover.client.errors import shown
from mover.client.progress import Bandwidth, OnProgress, Tally
from mover.client.ranges import Ranges
from mover.client.sender import Sender, Sending


@dataclass(frozen=True)
class Piece:
    """Bytes [offset, offset + length) of the image: the data of `segment`, or zeros if it is None."""

    offset: int
    length: int
    segment: Segment | None


def restore_to_server(
    disk: Disk,
    point: int | None,
    client: Client,
    progress: OnProgress | None = None,
    max_workers: int = MAX_WORKERS,
) -> Manifest:
    """Write a point (None is the newest) into an image of at least its size; the rest of that becomes zeros.

    Raises DamagedError, NoSuchPoint, BusyError, ClientError. The image is half written then.
    """
    with disk.reading(), PointReader(disk, disk.chain(point)) as reader:
        _Upload(client, reader, Tally(progress)).run(max_workers)
        return reader.manifest


class _Upload:
    def __init__(self, client: Client, reader: PointReader, tally: Tally) -> None:
        self.client = client
        self.reader = reader
        self.tally = tally
        self.crew: Crew[Piece] = Crew(tally.tell)
        self.sending = Sending(client, tally, Bandwidth(None, self.crew.sleep), lambda offset, length: None)
        self.pieces = list(self._pieces(self._size()))

    def _size(self) -> int:
        """Of the image. Raises BackupError if it is no place for this point."""
        there, size = self.client.size(), self.reader.manifest.size_bytes
        if there < size:
            why = f"it has {there} bytes, and the point {size}"
            raise BackupError(f"restoring to {shown(self.client.url)}", why, "give it an image of that size")
        if not self.client.options().can_write:
            raise BackupError(f"restoring to {shown(self.client.url)}", "it is read-only", "ask for a writable ticket")
        return there

    def _pieces(self, there: int) -> Iterator[Piece]:
        """All of the image, in order."""
        size = self.reader.manifest.size_bytes
        for segment in self.reader.pieces():
            data = segment if segment.layer is not None else None
            yield Piece(segment.first * CLUSTER_BYTES, self.reader.length(segment), data)
        if there > size:
            yield Piece(size, there - size, None)

    def run(self, max_workers: int) -> None:
        """All of it, flushed."""
        size = sum(piece.length for piece in self.pieces)
        self.tally.set(phase="data", size=size, data=self.reader.data_bytes)
        count = min(max_workers, max(1, self.client.options().max_writers), len(self.pieces))
        self.crew.run(self.pieces, lambda: _Writing(self), count)


class _Writing:
    """One connection."""

    def __init__(self, job: _Upload) -> None:
        self._job = job
        self._client = job.client.again(job.crew.sleep)
        self._sender = Sender(job.sending, self._client, self._rewrite)
        self._buffer = new_buffer(PIECE_BYTES)

    def do(self, task: Piece) -> None:
        """Write one piece."""
        self._write(task)
        if task.segment is not None:
            self._job.tally.moved(task.length)
        self._sender.flush_now_and_then()

    def _write(self, piece: Piece) -> None:
        if piece.segment is None:
            self._sender.zero(piece.offset, piece.length)
        else:
            view, _ = self._job.reader.read(piece.segment, self._buffer)
            self._sender.write(piece.offset, view)

    def _rewrite(self, ranges: Ranges) -> None:
        for piece in self._job.pieces:
            if any(lost for _, _, lost in ranges.parts(piece.offset, piece.length)):
                self._write(piece)

    def finish(self) -> None:
        """Flush what this connection has written."""
        self._sender.flush()

    def abort(self) -> None:
        """End the connection."""
        self._client.abort()

    def close(self) -> None:
        """Give it back."""
        self._client.close()
