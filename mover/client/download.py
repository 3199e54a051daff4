"""A whole job: an image into a file or a block device."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from mover.client.blkhash import BlockHashes, Hasher
from mover.client.client import DEFAULT_ALGORITHM, DEFAULT_BLOCK_BYTES, Checksum, Client
from mover.client.crew import MAX_WORKERS, Crew
from mover.client.errors import ChangedError, ClientError, RangeError, VerificationError
from mover.client.journal import Begun, Journal
from mover.client.keeper import Keeper
from mover.client.moving import move
from mover.client.plan import SAMPLE_BYTES, Run, Task, data_runs, digest, known, samples
from mover.client.progress import Bandwidth, OnProgress, Report, Tally
from mover.client.ranges import Ranges
from mover.client.target import Target, Writer
from mover.client.targets import open_target
from mover.client.verification import compare_moved, require_checksum

BUFFER_BYTES = 1 << 20
# Requests sent ahead of their turn: they hide the way to the server and back.
AHEAD = 4


def download(
    client: Client,
    path: Path | str,
    *,
    image_format: str = "raw",
    max_workers: int = MAX_WORKERS,
    buffer_bytes: int = BUFFER_BYTES,
    bandwidth: float | None = None,
    verify: bool = False,
    resume: bool = False,
    progress: OnProgress | None = None,
) -> Report:
    """Copy the image into `path`: "raw" or "qcow2", or a block device. It appears there when it is complete.

    `bandwidth` is in bytes a second, for all workers together. `verify` has the server's checksum compared with one
    made of the bytes as they pass. `resume` goes on where a job ended that did not complete; if there was none, it
    begins. Raises ClientError; what was moved is kept for `resume` then, beside `path`.
    """
    return _Download(client, open_target(Path(path), image_format), image_format, max_workers, buffer_bytes,
                     bandwidth, verify, resume, progress).run()  # fmt: skip


class _Download:
    def __init__(
        self, client: Client, target: Target, image_format: str, max_workers: int, buffer_bytes: int,
        bandwidth: float | None, verify: bool, resume: bool, progress: OnProgress | None,
    ) -> None:  # fmt: skip
        self.client = client
        self.target = target
        self.buffer_bytes = buffer_bytes
        self.tally = Tally(progress)
        self.crew: Crew[Task] = Crew(self.tally.tell)
        self.bandwidth = Bandwidth(bandwidth, self.crew.sleep)
        self.hashes: BlockHashes | None = None
        self.keeper: Keeper
        self._image_format = image_format
        self._max_workers = max_workers
        self._verify = verify
        self._resume = resume
        self._mismatched = False

    def run(self) -> Report:
        """All of it."""
        if self._verify:
            require_checksum(self.client)
        workers = max(1, min(self._max_workers, self.client.options().max_readers))
        self.target.lock()
        keep = self.target.was_there  # what an earlier job left is not this one's to remove
        opened = False
        try:
            runs = self._open()
            opened = True
            move(runs, self.crew, self.keeper, lambda: _Worker(self), workers, verify=self._verify)
            checksum = self._verified() if self._verify else None
            self.tally.set(phase="flush")
            self.target.commit()
            self._journal.remove()
        except BaseException:
            keep = self._kept() if opened else keep
            raise
        finally:
            self.target.close(keep)
        self.tally.set(phase="done")
        now = self.tally.now()
        return Report("download", now.size, now.data, now.resumed, now.retries, now.seconds, True, checksum)

    def _open(self) -> list[Run]:
        """What is to be done, with the target and the journal ready for it."""
        self.tally.set(phase="extents")
        extents = self.client.all_extents()
        size = extents[-1].end if extents else 0
        runs = data_runs(extents, zeros_too=not self.target.fresh)
        job = Begun("download", self.client.url, size, self._image_format, digest(runs))
        self._journal = Journal(self.target.journal)
        begun = self._journal.resume(job) if self._resume and self.target.was_there else None
        have = Ranges(begun.done if begun is not None else ())
        self.target.open(size, runs, resume=begun is not None)
        if begun is not None:
            self._compare_samples(have)
        else:
            self._journal.remove()
        self.keeper = Keeper(self._journal, begun or job, self.target.sync, self.crew.fail)
        parts = list(known(runs, have))
        resumed = sum(run.length for run in parts if run.have and not run.zero)
        data = sum(run.length for run in parts if not run.zero)
        self.tally.set(phase="data", size=size, data=data, done=resumed, resumed=resumed)
        if self._verify:
            self.hashes = BlockHashes(size, DEFAULT_ALGORITHM, DEFAULT_BLOCK_BYTES)
        return parts

    def _compare_samples(self, have: Ranges) -> None:
        """An export has no validators: whether it is the same image is seen by reading some of what one has."""
        writer = self.target.writer(SAMPLE_BYTES)
        try:
            for offset, length in samples(have):
                theirs, ours = bytearray(length), bytearray(length)
                self.client.read_into(offset, theirs)
                writer.read(offset, memoryview(ours))
                if theirs != ours:
                    why = f"the {length} bytes at {offset} are not what they were: another image, or it was written to"
                    raise ChangedError(self._journal.path, why)
        finally:
            writer.close()

    def _verified(self) -> Checksum:
        """The server's checksum and ours are the same. Raises VerificationError."""
        assert self.hashes is not None
        try:
            return compare_moved(self.client, self.hashes, self.tally, self.target.kept)
        except VerificationError:
            self.target.sync()
            self._mismatched = True
            self._journal.remove()  # the part stays, as evidence; there is nothing to go on with
            raise

    def _kept(self) -> bool:
        """What is done is written down, for another run; whether that is anything."""
        if self._mismatched:
            return True
        with contextlib.suppress(ClientError):
            return self.keeper.save() or not self.target.fresh
        return True


class _Worker:
    """One connection and one writer."""

    def __init__(self, job: _Download) -> None:
        self._job = job
        self._client = job.client.again(job.crew.sleep)
        self._writer: Writer = job.target.writer(job.buffer_bytes)
        self._hasher = Hasher(job.hashes) if job.hashes is not None else None
        self._patience = self._client.patience()

    def do(self, task: Task) -> None:
        """Runs in order; the requests for the next ones are on their way already."""
        for index, run in enumerate(task.runs):
            if run.zero:
                self._writer.zero(run.offset, run.length)
                self._job.keeper.done(run.offset, run.length)
            elif run.have:
                self._rehash(run)
            else:
                self._fetch(run, task.runs[index + 1 : index + 1 + AHEAD])
        if self._hasher is not None:
            self._hasher.finish()

    def _fetch(self, run: Run, following: Sequence[Run]) -> None:
        ahead = [(one.offset, one.length) for one in following if not (one.have or one.zero)]
        at = run.offset
        while at < run.end:
            try:
                with self._client.reading(at, run.end - at, ahead) as reply:
                    while at < run.end:
                        view = self._writer.buffer()[: run.end - at]
                        self._job.bandwidth.take(len(view))
                        reply.fill(view)
                        if self._hasher is not None:
                            self._hasher.feed(at, view)
                        self._writer.write(at, view, self._written)
                        at += len(view)
                        self._patience.progressed()
            except RangeError as error:
                self._patience.failed(error)
                self._job.tally.retried()

    def _written(self, offset: int, length: int) -> None:
        self._job.keeper.done(offset, length)
        self._job.tally.moved(length)

    def _rehash(self, run: Run) -> None:
        """What an earlier run has moved is read where it is, not from the server again."""
        if self._hasher is None:
            return
        at = run.offset
        while at < run.end:
            view = self._writer.buffer()[: run.end - at]
            self._writer.read(at, view)
            self._hasher.feed(at, view)
            at += len(view)

    def finish(self) -> None:
        """Wait for what is on its way into the target."""
        self._writer.finish()

    def abort(self) -> None:
        """End the connection."""
        self._client.abort()

    def close(self) -> None:
        """Give everything back."""
        self._client.close()
        self._writer.close()
