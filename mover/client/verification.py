"""Comparing an image with what was moved, or with a file: the server's checksum and our own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from mover.client.blkhash import BlockHashes, Hasher, new_hash
from mover.client.client import DEFAULT_ALGORITHM, DEFAULT_BLOCK_BYTES, Checksum, Client
from mover.client.crew import MAX_WORKERS, TICK_S, Crew
from mover.client.errors import ClientError, VerificationError
from mover.client.plan import Run, Task, data_runs, task_bytes, tasks
from mover.client.progress import OnProgress, Report, Tally
from mover.client.sources import Source, guess_format, open_source

BUFFER_BYTES = 1 << 20


def verify(
    client: Client, path: Path | str, *, algorithm: str = DEFAULT_ALGORITHM, block_bytes: int = DEFAULT_BLOCK_BYTES,
    image_format: str | None = None, progress: OnProgress | None = None,
) -> Report:  # fmt: skip
    """Compare the image with a local file or block device by their checksums, made here and there at the same time.

    Raises VerificationError where they differ, ValueError for an algorithm that is not there. A file that ends before
    the image is compared as if zeros followed.
    """
    new_hash(algorithm)
    require_checksum(client)
    tally = Tally(progress)
    tally.set(phase="extents")
    size = client.size()
    theirs = Asked(client, algorithm, block_bytes)
    try:
        hashes = _of_file(Path(path), image_format, tally, size, algorithm, block_bytes)
        tally.set(phase="checksum")
        checksum = theirs.same_as(hashes, tally.tell, str(path))
    finally:
        theirs.close()
    tally.set(phase="done")
    now = tally.now()
    return Report("verify", size, now.data, 0, 0, now.seconds, False, checksum)


def file_checksum(
    path: Path | str, *, algorithm: str = DEFAULT_ALGORITHM, block_bytes: int = DEFAULT_BLOCK_BYTES,
    image_format: str | None = None, progress: OnProgress | None = None,
) -> Checksum:  # fmt: skip
    """The checksum of a local file or block device, as a server would make it. Raises ClientError, ValueError."""
    hashes = _of_file(Path(path), image_format, Tally(progress), None, algorithm, block_bytes)
    return Checksum(algorithm, block_bytes, hashes.hexdigest())


def require_checksum(client: Client) -> None:
    """Raises ClientError where the server has none: better now than after the last byte."""
    if "checksum" not in client.options().features:
        raise ClientError("verification", "the server offers no checksums of this image", "go without it")


def compare_moved(client: Client, hashes: BlockHashes, tally: Tally, kept: str) -> Checksum:
    """The server's checksum, which is that of what was moved, and stays at `kept`. Raises VerificationError."""
    tally.set(phase="checksum")
    theirs = Asked(client, DEFAULT_ALGORITHM, DEFAULT_BLOCK_BYTES)
    try:
        return theirs.same_as(hashes, tally.tell, kept)
    finally:
        theirs.close()


class Asked:
    """The server's checksum, on its way, on a connection of its own."""

    def __init__(self, client: Client, algorithm: str, block_bytes: int) -> None:
        self._client = client.again()
        self._algorithm = algorithm
        self._block_bytes = block_bytes
        self._found: Checksum | BaseException | None = None
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        try:
            self._found = self._client.checksum(self._algorithm, self._block_bytes)
        except BaseException as error:  # noqa: BLE001 - raised again by who waits
            self._found = error

    def same_as(self, hashes: BlockHashes, tick: Callable[[], None], kept: str) -> Checksum:
        """Wait for it, calling `tick` now and then. Raises VerificationError if it is not that of `hashes`."""
        while self._thread.is_alive():
            self._thread.join(TICK_S)
            tick()
        if not isinstance(self._found, Checksum):
            assert self._found is not None
            raise self._found
        if self._found.checksum != (ours := hashes.hexdigest()):
            raise VerificationError(self._client.url, self._algorithm, self._found.checksum, ours, kept)
        return self._found

    def close(self) -> None:
        """Whether it has come or not."""
        self._client.abort()
        self._thread.join()
        self._client.close()


def _of_file(
    path: Path, image_format: str | None, tally: Tally, size: int | None, algorithm: str, block_bytes: int
) -> BlockHashes:
    source = open_source(path, image_format or guess_format(path))
    try:
        hashes = BlockHashes(source.size_bytes if size is None else size, algorithm, block_bytes)
        runs = [run for run in data_runs(source.extents()) if run.offset < hashes.size_bytes]
        runs = [Run(run.offset, min(run.end, hashes.size_bytes) - run.offset) for run in runs]
        data = sum(run.length for run in runs)
        tally.set(phase="data", size=hashes.size_bytes, data=data)
        crew: Crew[Task] = Crew(tally.tell)
        work = tasks(runs, task_bytes(data, MAX_WORKERS, block_bytes), block_bytes)
        crew.run(work, lambda: _FileHasher(source, hashes, tally), MAX_WORKERS)
        return hashes
    finally:
        source.close()


class _FileHasher:
    """One thread that reads and hashes."""

    def __init__(self, source: Source, hashes: BlockHashes, tally: Tally) -> None:
        self._reader = source.reader(BUFFER_BYTES)
        self._hasher = Hasher(hashes)
        self._tally = tally

    def do(self, task: Task) -> None:
        """Whole blocks."""
        for run in task.runs:
            for at in range(run.offset, run.end, BUFFER_BYTES):
                self._reader.begin(at, min(BUFFER_BYTES, run.end - at))
                view = self._reader.take()
                self._hasher.feed(at, view)
                self._tally.moved(len(view))
        self._hasher.finish()

    def finish(self) -> None:
        """Nothing is left to do."""

    def abort(self) -> None:
        """A task ends soon by itself."""

    def close(self) -> None:
        """Give everything back."""
        self._reader.close()
