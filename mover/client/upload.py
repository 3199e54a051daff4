"""A whole job: a file or a block device into an image.

What is where:

    source    |  data  |      zero       |  data  |
    target    |zero|  data |    zero     |  data  |      what it reads as before; of one that cannot say, all is data
    done      | write  |zero | nothing   |  write |
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from mover.client.blkhash import BlockHashes, Hasher
from mover.client.client import DEFAULT_ALGORITHM, DEFAULT_BLOCK_BYTES, Checksum, Client
from mover.client.crew import MAX_WORKERS, Crew
from mover.client.errors import ChangedError, ClientError, LocalError, VerificationError
from mover.client.extents import Extent
from mover.client.journal import Begun, Journal
from mover.client.keeper import Keeper
from mover.client.moving import move
from mover.client.plan import SAMPLE_BYTES, Run, Task, data_runs, digest, known, samples
from mover.client.progress import Bandwidth, OnProgress, Report, Tally
from mover.client.ranges import Ranges
from mover.client.sender import Sender, Sending
from mover.client.sources import Source, guess_format, open_source
from mover.client.verification import compare_moved, require_checksum
from mover.client.whole_file import is_whole_file, upload_whole

BUFFER_BYTES = 4 << 20


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
    A server that takes files only as a whole gets the file as it is.
    """
    path = Path(path)
    if is_whole_file(client.options()):
        if verify:
            require_checksum(client)
        return upload_whole(client, path, buffer_bytes=buffer_bytes, bandwidth=bandwidth, progress=progress)
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
        self.sending: Sending
        self.hashes: BlockHashes | None = None
        # All of the source, and what of it is to be done.
        self.runs: list[Run] = []
        self._needed: list[Run] = []
        self._bandwidth = Bandwidth(bandwidth, self.crew.sleep)
        self._max_workers = max_workers
        self._verify = verify

    def run(self, image_format: str, resume: bool) -> Report:
        """All of it."""
        options = self.client.options()
        if not options.can_write:
            raise ClientError(f"upload of {self.source.path}", "the image is read-only", "ask for a writable ticket")
        if self._verify:
            require_checksum(self.client)
        self._open(image_format, resume)
        try:
            workers = max(1, min(self._max_workers, options.max_writers))
            move(self._needed, self.crew, self._keeper, lambda: _Worker(self), workers, verify=self._verify)
            self.source.check_unchanged()
            checksum = self._verified() if self._verify else None
        except VerificationError:
            self._journal.remove()  # the image stays, as evidence; there is nothing to go on with
            raise
        except BaseException:
            with contextlib.suppress(ClientError):
                self._keeper.save()
            raise
        self._journal.remove()
        self.tally.set(phase="done")
        now = self.tally.now()
        return Report(
            "upload", now.size, now.data, now.resumed, now.retries, now.seconds, self.sending.can_flush, checksum
        )

    def _open(self, image_format: str, resume: bool) -> None:
        """What is to be done, and the journal."""
        self.tally.set(phase="extents")
        there = self.client.all_extents()
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
        self._keeper = Keeper(self._journal, begun or job, lambda: None, self.crew.fail)
        self.sending = Sending(self.client, self.tally, self._bandwidth, self._keeper.done)
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
            for offset, length in samples(data):
                theirs = bytearray(length)
                self.client.read_into(offset, theirs)
                reader.begin(offset, length)
                if reader.take() != theirs:
                    why = f"the image does not have the {length} bytes at {offset} that it was given"
                    raise ChangedError(self._journal.path, why)
        finally:
            reader.close()

    def _verified(self) -> Checksum:
        assert self.hashes is not None
        return compare_moved(self.client, self.hashes, self.tally, "the image itself")


class _Worker:
    """One connection and one reader."""

    def __init__(self, job: _Upload) -> None:
        self._job = job
        self._client = job.client.again(job.crew.sleep)
        self._sender = Sender(job.sending, self._client, self._rewrite)
        self._reader = job.source.reader(job.buffer_bytes)
        self._hasher = Hasher(job.hashes) if job.hashes is not None else None

    def do(self, task: Task) -> None:
        """Zero, or read and write, one buffer after the other."""
        for run in task.runs:
            if run.zero and not run.have:
                self._sender.zero(run.offset, run.length)
        for piece, view in self._read(task.runs):
            if self._hasher is not None:
                self._hasher.feed(piece.offset, view)
            if not piece.have:
                self._sender.write(piece.offset, view)
                self._job.tally.moved(piece.length)
        if self._hasher is not None:
            self._hasher.finish()
        self._sender.flush_now_and_then()

    def _read(self, runs: Iterable[Run]) -> Iterator[tuple[Run, memoryview]]:
        """The data of the runs, a buffer at a time; the next one is read meanwhile."""
        pieces = deque(_pieces((run for run in runs if not run.zero), self._job.buffer_bytes))
        if pieces:
            self._reader.begin(pieces[0].offset, pieces[0].length)
        while pieces:
            piece = pieces.popleft()
            if pieces:
                self._reader.begin(pieces[0].offset, pieces[0].length)
            yield piece, self._reader.take()

    def _rewrite(self, ranges: Ranges) -> None:
        runs = [run for run in known(self._job.runs, ranges) if run.have]
        for run in runs:
            if run.zero:
                self._sender.zero(run.offset, run.length)
        for piece, view in self._read(runs):
            self._sender.write(piece.offset, view)

    def finish(self) -> None:
        """Flush what this connection has written."""
        self._sender.flush()

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


def _pieces(runs: Iterable[Run], most: int) -> Iterator[Run]:
    """The runs cut into pieces of at most `most` bytes."""
    for run in runs:
        for at in range(run.offset, run.end, most):
            yield Run(at, min(most, run.end - at), run.zero, run.have)
