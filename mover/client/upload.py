"""A whole job: a file or a block device into an image.

source    |  data  |      zero       |  data  |
target    |zero|  data |    zero     |  data  |      what it reads as before; of one that cannot say, all is data
done      | write  |zero | nothing   |  write |
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mover.client import zeros
from mover.client.blkhash import BlockHashes, Hasher
from mover.client.client import DEFAULT_ALGORITHM, DEFAULT_BLOCK_BYTES, Checksum, Client
from mover.client.crew import Crew
from mover.client.download import (
    MAX_WORKERS,
    SAMPLE_BYTES,
    SAMPLES,
    list_extents,
    require_checksum,
    server_checksum,
)
from mover.client.errors import (
    BrokenError,
    ChangedError,
    ClientError,
    LocalError,
    LostWritesError,
    RangeError,
    VerificationError,
)
from mover.client.extents import Extent
from mover.client.journal import Begun, Journal
from mover.client.keeper import Keeper
from mover.client.plan import Run, Task, data_runs, digest, known, samples, task_bytes, tasks
from mover.client.progress import Bandwidth, OnProgress, Report, Tally
from mover.client.ranges import Range, Ranges
from mover.client.sources import Source, guess_format, open_source

BUFFER_BYTES = 4 << 20
# Only what is flushed is done for good: a job that is killed has this much to do again.
FLUSH_S = 5.0
# One request to zero: long ones would look like a server that is stuck.
ZERO_BYTES = 1 << 30
# Zeros within data are worth a request of their own from here on.
ZERO_GRAIN_BYTES = 256 * 1024


def upload(
    client: Client,
    path: Path | str,
    *,
    image_format: str | None = None,
    max_workers: int = MAX_WORKERS,
    buffer_bytes: int = BUFFER_BYTES,
    bandwidth: float | None = None,
    verify: bool = False,
    resume: bool = False,
    progress: OnProgress | None = None,
) -> Report:
    """Copy a raw or qcow2 file, or a block device, into the image, which reads as zeros where the file ends before it.

    `image_format` is "qcow2" for files that are named so, "raw" for others, and anything that qemu reads if it is
    said. All of it is flushed at the end. Otherwise as `download`; the journal for `resume` is beside the file.
    """
    path = Path(path)
    source = open_source(path, image_format or guess_format(path))
    try:
        job = _Upload(client, source, max_workers, buffer_bytes, bandwidth, verify, progress)
        return job.run(image_format or guess_format(path), resume)
    finally:
        source.close()


class _Upload:
    def __init__(
        self, client: Client, source: Source, max_workers: int, buffer_bytes: int, bandwidth: float | None,
        verify: bool, progress: OnProgress | None,
    ) -> None:  # fmt: skip
        self.client = client
        self.source = source
        self.buffer_bytes = buffer_bytes
        self.tally = Tally(progress)
        self.crew: Crew[Task] = Crew(self.tally.tell)
        self.bandwidth = Bandwidth(bandwidth, self.crew.sleep)
        self.hashes: BlockHashes | None = None
        self.keeper: Keeper
        self.can_zero = False
        self.flushes = False
        self.unflushed = Unflushed()
        # All of the source, and what of it is to be done.
        self.runs: list[Run] = []
        self._needed: list[Run] = []
        self._max_workers = max_workers
        self._verify = verify

    def run(self, image_format: str, resume: bool) -> Report:
        """All of it."""
        options = self.client.options()
        if not options.can_write:
            raise ClientError(f"upload of {self.source.path}", "the image is read-only", "ask for a writable ticket")
        if self._verify:
            require_checksum(self.client)
        self.can_zero = "zero" in options.features
        self.flushes = "flush" in options.features
        self._open(image_format, resume)
        try:
            self._move(max(1, min(self._max_workers, options.max_writers)))
            self.source.check_unchanged()
            checksum = self._verified() if self._verify else None
        except BaseException:
            with contextlib.suppress(ClientError):
                self.keeper.save()
            raise
        self._journal.remove()
        self.tally.set(phase="done")
        now = self.tally.now()
        return Report("upload", now.size, now.data, now.resumed, now.retries, now.seconds, self.flushes, checksum)

    def _open(self, image_format: str, resume: bool) -> None:
        """What is to be done, and the journal."""
        self.tally.set(phase="extents")
        there = list_extents(self.client)
        size = there[-1].end if there else 0
        if self.source.size_bytes > size:
            why = f"its {self.source.size_bytes} bytes do not fit the image's {size}"
            raise LocalError(self.source.path, "upload of", why, "make a larger image")
        self.runs = data_runs(_padded(self.source.extents(), size), zeros_too=True)
        identity = self.source.identity
        job = Begun("upload", self.client.url, size, image_format, digest(self.runs), identity)
        self._journal = Journal(self.source.journal)
        begun = self._journal.resume(job) if resume else None
        have = Ranges(begun.done if begun is not None else ())
        self._needed = list(_without_zeros(known(self.runs, have), there))
        if begun is not None:
            self._compare_samples(have)
        else:
            self._journal.remove()
        self.keeper = Keeper(self._journal, begun or job, lambda: None, self.crew.fail)
        data = sum(run.length for run in self._needed if not run.zero)
        resumed = sum(run.length for run in self._needed if run.have and not run.zero)
        self.tally.set(phase="data", size=size, data=data, done=resumed, resumed=resumed)
        if self._verify:
            self.hashes = BlockHashes(size, DEFAULT_ALGORITHM, DEFAULT_BLOCK_BYTES)

    def _compare_samples(self, have: Ranges) -> None:
        """The image still has what it was given: it is not another one, or made anew."""
        data = Ranges((run.offset, run.length) for run in known(self.runs, have) if run.have and not run.zero)
        reader = self.source.reader(SAMPLE_BYTES)
        try:
            for offset, length in samples(data, SAMPLES, SAMPLE_BYTES):
                theirs = bytearray(length)
                self.client.read_into(offset, theirs)
                reader.begin(offset, length)
                if reader.take() != theirs:
                    why = f"the image does not have the {length} bytes at {offset} that it was given"
                    raise ChangedError(self._journal.path, why)
        finally:
            reader.close()

    def _move(self, workers: int) -> None:
        align = DEFAULT_BLOCK_BYTES if self._verify else 1
        needed = [run for run in self._needed if not run.have or (self._verify and not run.zero)]
        size = task_bytes(sum(run.length for run in needed if not run.zero), workers, align)
        self.keeper.start()
        try:
            self.crew.run(tasks(needed, size, align), lambda: _Worker(self), workers)
        finally:
            self.keeper.stop()

    def _verified(self) -> Checksum:
        assert self.hashes is not None
        self.tally.set(phase="checksum")
        theirs = server_checksum(self.client, self.hashes, self.tally.tell)
        if theirs.checksum != (ours := self.hashes.hexdigest()):
            self._journal.remove()
            raise VerificationError(self.client.url, theirs.algorithm, theirs.checksum, ours, "the image itself")
        return theirs


class Unflushed:
    """What all workers have written and nobody has flushed."""

    def __init__(self) -> None:
        self._ranges = Ranges()
        self._lock = threading.Lock()
        # Held from asking for a flush until what it lost is written again. A loss is told once, to whoever asks first,
        # and may be of what another worker wrote, which must not take its own flush for a good one meanwhile.
        self.flushing = threading.Lock()

    def add(self, offset: int, length: int) -> None:
        """Written; from any thread."""
        with self._lock:
            self._ranges.add(offset, length)

    def remove(self, ranges: Iterable[Range]) -> None:
        """Flushed; from any thread."""
        with self._lock:
            for offset, length in ranges:
                self._ranges.remove(offset, length)

    def all(self) -> list[Range]:
        """As it stands."""
        with self._lock:
            return list(self._ranges)


class _Worker:
    """One connection and one reader."""

    def __init__(self, job: _Upload) -> None:
        self._job = job
        self._client = job.client.again(job.crew.sleep)
        self._reader = job.source.reader(job.buffer_bytes)
        self._hasher = Hasher(job.hashes) if job.hashes is not None else None
        self._patience = self._client.patience()
        # Written on this connection, or one of its predecessors, since the last flush.
        self._mine = Ranges()
        self._flushed_at = time.monotonic()

    def do(self, task: Task) -> None:
        """Zero, or read and write, one buffer after the other."""
        self._move(task.runs)
        if self._hasher is not None:
            self._hasher.finish()
        if time.monotonic() - self._flushed_at > FLUSH_S:
            self._flush()

    def _move(self, runs: Sequence[Run], *, again: bool = False) -> None:
        for run in runs:
            if run.zero and not run.have:
                self._zero(run.offset, run.length)
        pieces = deque(_pieces((run for run in runs if not run.zero), self._job.buffer_bytes))
        for index, piece in enumerate(pieces):
            if index == 0:
                self._reader.begin(piece.offset, piece.length)
            if index + 1 < len(pieces):
                self._reader.begin(pieces[index + 1].offset, pieces[index + 1].length)
            view = self._reader.take()
            if self._hasher is not None and not again:
                self._hasher.feed(piece.offset, view)
            if not piece.have:
                self._write(piece.offset, view)
                if not again:
                    self._job.tally.moved(piece.length)

    def _write(self, offset: int, view: memoryview) -> None:
        for start, length, zero in zeros.runs(view, offset, ZERO_GRAIN_BYTES):
            if zero and self._job.can_zero:
                self._zero(offset + start, length)
            else:
                self._job.bandwidth.take(length)
                self._put(offset + start, view[start : start + length])

    def _put(self, offset: int, view: memoryview) -> None:
        while True:
            try:
                self._client.put(offset, [view])
                break
            except RangeError as error:
                self._patience.failed(error)
                self._job.tally.retried()
        self._done(offset, len(view))

    def _zero(self, offset: int, length: int) -> None:
        for at in range(offset, offset + length, ZERO_BYTES):
            part = min(ZERO_BYTES, offset + length - at)
            if self._job.can_zero:
                self._client.zero(at, part)
                self._done(at, part)
            else:
                for place in range(at, at + part, len(zeros.SLAB)):
                    self._put(place, zeros.SLAB[: min(len(zeros.SLAB), at + part - place)])

    def _done(self, offset: int, length: int) -> None:
        self._patience.progressed()
        self._job.unflushed.add(offset, length)
        self._mine.add(offset, length)

    def _flush(self) -> None:
        """Flush what this connection has written; what the server says is lost is written again before."""
        with self._job.unflushed.flushing:
            if self._job.flushes and self._mine.bytes:
                self._flush_until_held()
            flushed = list(self._mine)
            self._job.unflushed.remove(flushed)
            for offset, length in flushed:
                self._job.keeper.done(offset, length)
            self._mine = Ranges()
        self._flushed_at = time.monotonic()

    def _flush_until_held(self) -> None:
        patience = self._client.patience()
        while True:
            try:
                self._client.flush()
                return
            except LostWritesError as error:
                lost = error.lost
                patience.failed(error)
            except BrokenError as error:
                # Whether it would have told a loss, nobody knows any more.
                lost = self._job.unflushed.all()
                patience.failed(error)
            except RangeError as error:
                lost = []
                patience.failed(error)
            self._job.tally.retried()
            self._move(_within(self._job.runs, Ranges(lost)), again=True)

    def finish(self) -> None:
        """Flush what this connection has written."""
        self._flush()

    def abort(self) -> None:
        """End the connection."""
        self._client.abort()

    def close(self) -> None:
        """Give everything back."""
        self._client.close()
        self._reader.close()


def _padded(extents: list[Extent], size: int) -> list[Extent]:
    """The source's extents, and zeros up to the image's size."""
    end = extents[-1].end if extents else 0
    return [*extents, Extent(end, size - end, zero=True)] if end < size else extents


def _without_zeros(runs: Iterable[Run], there: Iterable[Extent]) -> Iterator[Run]:
    """The runs; of zeros, one has those that the image reads as zeros already."""
    zero = Ranges((extent.start, extent.length) for extent in there if extent.zero)
    for run in runs:
        if run.zero and not run.have:
            yield from known([run], zero)
        else:
            yield run


def _within(runs: Iterable[Run], ranges: Ranges) -> list[Run]:
    """The parts of the runs that are in `ranges`."""
    return [Run(run.offset, run.length, run.zero) for run in known(runs, ranges) if run.have]


def _pieces(runs: Iterable[Run], most: int) -> Iterator[Run]:
    """The runs cut into pieces of at most `most` bytes."""
    for run in runs:
        for at in range(run.offset, run.end, most):
            yield Run(at, min(most, run.end - at), run.zero, run.have)
