"""A full or an incremental backup: what has changed is read from a server and becomes a point in time.

extents ─► clusters ─► layout of the file ─► data, by several connections ─► digests ─► blkhash ─► published
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from mover.backup.clusters import Change, Segment, changes_of, content_of, cut, overlay
from mover.backup.digests import Digests, blkhash_of_data, blkhash_of_disk, digests_of, load
from mover.backup.errors import BackupError, ChangesUnknown, DifferentError, RepositoryError
from mover.backup.manifest import Blkhash, Manifest, extents_of
from mover.backup.names import file_names, new_name
from mover.backup.parallel import new_buffer
from mover.backup.point_writer import PointWriter, new_point
from mover.backup.proving import prove
from mover.backup.reader import PIECE_BYTES, PIECE_CLUSTERS, Layer
from mover.backup.repository import Disk
from mover.client import BrokenError, Client, RefusedError
from mover.client.clusters import CLUSTER_BYTES, Content
from mover.client.crew import MAX_WORKERS, Crew
from mover.client.errors import shown
from mover.client.progress import OnProgress, Tally
from mover.client.qcow2 import Layout, TooLargeError
from mover.client.verification import require_checksum

# What servers answer that have no bitmap (404), or know no contexts (400).
NO_CHANGES = frozenset({400, 404})


@dataclass(frozen=True)
class Wish:
    """What the caller wants. `bitmap` is the one whose changes the server lists, `checkpoint` the one begun now.

    Where one bitmap goes on and on, it is both.
    """

    incremental: bool
    bitmap: str | None = None
    checkpoint: str | None = None
    allow_full: bool = False
    max_workers: int = MAX_WORKERS
    verify: bool = False
    """Read the point back, and compare it with the image by the server's checksum."""


@dataclass(frozen=True)
class Taken:
    """A backup that was made; `why_full` says why it is no incremental, where one was wanted."""

    manifest: Manifest
    why_full: ChangesUnknown | None


def back_up(disk: Disk, client: Client, wish: Wish, progress: OnProgress | None = None) -> Taken:
    """Make a point of the image as it is now, which must not change meanwhile: a snapshot, or a fleecing export.

    Raises ClientError, of which BackupError is one. Nothing is left of what failed.
    """
    with disk.writing("incremental" if wish.incremental else "full"):
        return _Run(disk, client, wish, Tally(progress)).make()


class _Run:
    def __init__(self, disk: Disk, client: Client, wish: Wish, tally: Tally) -> None:
        self._disk = disk
        self._client = client
        self._wish = wish
        self._tally = tally
        self._began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._size_bytes = client.size()
        if wish.verify:
            require_checksum(client)

    def make(self) -> Taken:
        why_full = None
        chain: list[Manifest] = []
        if self._wish.incremental:
            try:
                chain, content = self._changes()
                return Taken(self._store(content, chain), None)
            except ChangesUnknown as error:
                if not self._wish.allow_full:
                    raise
                why_full = error
        return Taken(self._store(self._all(), []), why_full)

    # -- what to read ----------------------------------------------------------------------------------------

    def _changes(self) -> tuple[list[Manifest], Content]:
        """The chain to add to, and what to add. Raises ChangesUnknown."""
        if not self._disk.points():
            raise ChangesUnknown(self._disk.name, "there is no backup yet whose changes it could have")
        chain = self._disk.chain(None)
        parent = chain[-1]
        if self._wish.bitmap is not None and parent.checkpoint not in (None, self._wish.bitmap):
            why = f"bitmap {self._wish.bitmap!r} does not begin at point {parent.point}, but {parent.checkpoint!r} does"
            raise ChangesUnknown(self._disk.name, why)
        try:
            content = self._listed("dirty", parent.size_bytes)
        except RefusedError as error:
            if error.status not in NO_CHANGES:
                raise
            raise ChangesUnknown(self._disk.name, f"the server lists no changes: {error.reason}") from error
        return chain, content

    def _all(self) -> Content:
        return self._listed("zero", self._size_bytes)

    def _listed(self, context: str, parent_bytes: int) -> Content:
        patience = self._client.patience()
        while True:
            try:
                return content_of(changes_of(self._extents(context), self._size_bytes, parent_bytes))
            except BrokenError as error:
                patience.failed(error)

    def _extents(self, context: str) -> Iterator[Change]:
        """The image's extents, and which of them are to be stored."""
        end = 0
        for extent in self._client.extents(context):
            end = extent.end
            wanted = not extent.zero if context == "zero" else extent.dirty
            if wanted is None:
                raise ChangesUnknown(self._disk.name, "the server does not say which extents are dirty")
            yield Change(extent.start, extent.length, wanted, extent.zero)
        if end != self._size_bytes:
            why = f"its extents end at {end}, and the image at {self._size_bytes}"
            raise BackupError(f"backup of {shown(self._client.url)}", why, "is it resized just now? try again")

    # -- storing it ------------------------------------------------------------------------------------------

    def _store(self, content: Content, chain: Sequence[Manifest]) -> Manifest:
        """Read what `content` says, and publish it as a point over `chain` (none: a full one)."""
        point = self._disk.next_point()
        file, digests = file_names(point)
        new_file, new_digests = self._disk.file(new_name(file)), self._disk.file(new_name(digests))
        try:
            layout = Layout.plan(self._size_bytes, content, chain[-1].file if chain else None)
            with new_point(new_file, new_digests, layout) as writer:
                self._copy(content, writer)
                own = load(new_digests, content.data_clusters)
                blkhash = self._blkhash(content, own, chain)
                writer.sync()
                made = self._disk.publish(self._manifest(point, layout, chain, blkhash, blkhash_of_data(own)))
        except TooLargeError as error:
            raise BackupError(f"backup of {shown(self._client.url)}", str(error), "store it in another way") from error
        except OSError as error:
            raise storing_failed(self._disk, error) from error
        if self._wish.verify:
            self._prove([*chain, made])
        return made

    def _prove(self, chain: Sequence[Manifest]) -> None:
        """A point that is not the image is no base for others: it goes again."""
        try:
            prove(self._disk, chain, self._client, self._tally)
        except DifferentError:
            self._disk.withdraw(chain[-1:])
            self._disk.sweep()
            raise

    def _copy(self, content: Content, writer: PointWriter) -> None:
        """Read all the data by several connections."""
        mapped = overlay([(content, self._size_bytes)], self._size_bytes)
        pieces = [piece for piece in cut(mapped, PIECE_CLUSTERS) if piece.layer is not None]
        data = sum(length for _, length in extents_of(content.data, self._size_bytes))
        self._tally.set(phase="data", size=self._size_bytes, data=data)
        count = min(self._wish.max_workers, max(1, self._client.options().max_readers), len(pieces))
        crew: Crew[Segment] = Crew(self._tally.tell)
        crew.run(pieces, lambda: _Reading(self._client.again(crew.sleep), writer, self._size_bytes, self._tally), count)

    def _blkhash(self, content: Content, own: Digests, chain: Sequence[Manifest]) -> str:
        """Of the whole disk, from the digests of the chain and the new ones."""
        layers = [Layer(self._disk, each, chain[number - 1] if number else None) for number, each in enumerate(chain)]
        try:
            contents = [(layer.content, layer.manifest.size_bytes) for layer in layers]
            segments = overlay([*contents, (content, self._size_bytes)], self._size_bytes)
            return blkhash_of_disk(self._size_bytes, segments, [*(layer.digests for layer in layers), own])
        finally:
            for layer in layers:
                layer.close()

    def _manifest(
        self, point: int, layout: Layout, chain: Sequence[Manifest], blkhash: str, data_blkhash: str
    ) -> Manifest:
        file, digests = file_names(point)
        return Manifest(
            point=point,
            kind="incremental" if chain else "full",
            time=self._began,
            tool=_tool(),
            image=shown(self._client.url),
            size_bytes=self._size_bytes,
            parent=chain[-1].point if chain else None,
            bitmap=self._wish.bitmap if chain else None,
            checkpoint=self._wish.checkpoint or self._wish.bitmap,
            file=file,
            file_bytes=layout.file_bytes,
            digests=digests,
            data=extents_of(layout.content.data, self._size_bytes),
            zero=extents_of(layout.content.zero, self._size_bytes),
            blkhash=Blkhash(blkhash),
            data_blkhash=Blkhash(data_blkhash),
        )


class _Reading:
    """One connection, and what it reads into."""

    def __init__(self, client: Client, writer: PointWriter, size_bytes: int, tally: Tally) -> None:
        self._client = client
        self._writer = writer
        self._size_bytes = size_bytes
        self._tally = tally
        self._buffer = new_buffer(PIECE_BYTES)

    def do(self, task: Segment) -> None:
        """Read a piece, and write it with its digests."""
        offset = task.first * CLUSTER_BYTES
        view = self._buffer[: min(task.clusters * CLUSTER_BYTES, self._size_bytes - offset)]
        self._client.read_into(offset, view)
        self._writer.write(task.position, view, digests_of(view))
        self._tally.moved(len(view))

    def finish(self) -> None:
        """There is nothing to be flushed."""

    def abort(self) -> None:
        """End the connection."""
        self._client.abort()

    def close(self) -> None:
        """Give it back."""
        self._client.close()


def storing_failed(disk: Disk, error: OSError) -> RepositoryError:
    """What the system said when a point's files were written. Nothing is left of them."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = "make room (`mover backup prune`) and run it again" if full else "check the directory and its disk"
    return RepositoryError(
        disk.directory, f"storing a point of {disk.name} in {disk.directory}", error.strerror or str(error), advice
    )


def _tool() -> str:
    try:
        return f"mover {version('image-mover')}"
    except PackageNotFoundError:  # run from a source tree
        return "mover"
