"""Whole jobs over a pipe: an image to standard output, in order; standard input into an image.

pieces    | 0 | 1 |  zero  | 2 | 3 | 4 |         fetched by several workers into few buffers, in this order
written   | 0 | 1 |  zero  |...                  by the job's own thread, which waits for the reader
"""

from __future__ import annotations

import os
import queue
import select
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from mover.client import zeros
from mover.client.blkhash import BlockHashes, Hasher
from mover.client.client import DEFAULT_ALGORITHM, DEFAULT_BLOCK_BYTES, Checksum, Client
from mover.client.crew import MAX_WORKERS, Crew
from mover.client.errors import ClientError, LocalError, RangeError
from mover.client.plan import Run, data_runs
from mover.client.progress import Bandwidth, OnProgress, Report, Tally
from mover.client.ranges import Ranges
from mover.client.sender import Sender, Sending
from mover.client.verification import compare_moved, require_checksum

BUFFER_BYTES = 1 << 20
BUFFERS_A_WORKER = 3
POLL_MS = 100


@dataclass
class _Piece:
    """A part of the image on its way; `view` is None for zeros."""

    offset: int
    length: int
    view: memoryview | None = None
    ready: bool = field(default=False, compare=False)


def download(
    client: Client,
    fd: int,
    *,
    max_workers: int = MAX_WORKERS,
    buffer_bytes: int = BUFFER_BYTES,
    bandwidth: float | None = None,
    verify: bool = False,
    progress: OnProgress | None = None,
) -> Report:
    """Write the whole raw image to a pipe. As `mover.client.download`, but nothing can be resumed."""
    return _Out(client, fd, max_workers, buffer_bytes, bandwidth, verify, progress).run()


class _Out:
    def __init__(
        self, client: Client, fd: int, max_workers: int, buffer_bytes: int, bandwidth: float | None, verify: bool,
        progress: OnProgress | None,
    ) -> None:  # fmt: skip
        self.client = client
        self.tally = Tally(progress)
        self.crew: Crew[_Piece] = Crew(self._tick)
        self.bandwidth = Bandwidth(bandwidth, self.crew.sleep)
        self._fd = fd
        self._workers = max(1, min(max_workers, client.options().max_readers))
        self._buffer_bytes = buffer_bytes
        self._verify = verify
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        # In the order of the image: what is being fetched, and what is to be written next.
        self._upcoming: deque[_Piece] = deque()
        self._hasher: Hasher | None = None

    def run(self) -> Report:
        """All of it."""
        if self._verify:
            require_checksum(self.client)
        self.tally.set(phase="extents")
        runs = data_runs(self.client.all_extents(), zeros_too=True)
        size = runs[-1].end if runs else 0
        hashes = BlockHashes(size, DEFAULT_ALGORITHM, DEFAULT_BLOCK_BYTES)
        self._hasher = Hasher(hashes) if self._verify else None
        self.tally.set(phase="data", size=size, data=sum(run.length for run in runs if not run.zero))
        for _ in range(self._workers * BUFFERS_A_WORKER):
            self._free.put(memoryview(bytearray(self._buffer_bytes)))
        self.crew.run(self._pieces(runs), lambda: _Fetcher(self), self._workers)
        self._write_ready()
        checksum = self._verified(hashes) if self._verify else None
        self.tally.set(phase="done")
        now = self.tally.now()
        return Report("download", now.size, now.data, 0, now.retries, now.seconds, False, checksum)

    def _pieces(self, runs: list[Run]) -> Iterator[_Piece]:
        """Data, one buffer at a time; who asks for the next one waits until a buffer is free."""
        for run in runs:
            if run.zero:
                self._upcoming.append(_Piece(run.offset, run.length, ready=True))
                continue
            for at in range(run.offset, run.end, self._buffer_bytes):
                length = min(self._buffer_bytes, run.end - at)
                piece = _Piece(at, length, _wait(self._free, self.crew)[:length])
                self._upcoming.append(piece)
                yield piece

    def _tick(self) -> None:
        self._write_ready()
        self.tally.tell()

    def _write_ready(self) -> None:
        while self._upcoming and self._upcoming[0].ready:
            piece = self._upcoming.popleft()
            if piece.view is None:
                self._write_zeros(piece.length)
                continue
            if self._hasher is not None:
                self._hasher.feed(piece.offset, piece.view)
            self._write(piece.view)
            self.tally.moved(piece.length)
            self._free.put(_whole(piece.view))

    def _write_zeros(self, length: int) -> None:
        while length:
            part = min(length, len(zeros.SLAB))
            self._write(zeros.SLAB[:part])
            length -= part

    def _write(self, view: memoryview) -> None:
        try:
            while len(view):
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            advice = "see why its reader has left" if isinstance(error, BrokenPipeError) else "see where it goes"
            raise LocalError.from_os("standard output", "writing to", error, advice) from error

    def _verified(self, hashes: BlockHashes) -> Checksum:
        assert self._hasher is not None
        self._hasher.finish()
        return compare_moved(self.client, hashes, self.tally, "no place: it went through a pipe")


class _Fetcher:
    """One connection that fills buffers."""

    def __init__(self, job: _Out) -> None:
        self._job = job
        self._client = job.client.again(job.crew.sleep)
        self._patience = self._client.patience()

    def do(self, piece: _Piece) -> None:
        """One piece."""
        assert piece.view is not None
        self._job.bandwidth.take(piece.length)
        while not piece.ready:
            try:
                with self._client.reading(piece.offset, piece.length) as reply:
                    reply.fill(piece.view)
                self._patience.progressed()
                piece.ready = True
            except RangeError as error:
                self._patience.failed(error)
                self._job.tally.retried()
        self._job.crew.wake()

    def finish(self) -> None:
        """Nothing is left to do."""

    def abort(self) -> None:
        """End the connection."""
        self._client.abort()

    def close(self) -> None:
        """Give everything back."""
        self._client.close()


def upload(
    client: Client,
    fd: int,
    *,
    max_workers: int = MAX_WORKERS,
    buffer_bytes: int = BUFFER_BYTES,
    bandwidth: float | None = None,
    verify: bool = False,
    progress: OnProgress | None = None,
) -> Report:
    """Write what a pipe brings into the image, which reads as zeros after its end. As `mover.client.upload`.

    What is not flushed when the image's server is lost cannot be sent again: the job fails then.
    """
    return _In(client, fd, max_workers, buffer_bytes, bandwidth, verify, progress).run()


class _In:
    def __init__(
        self, client: Client, fd: int, max_workers: int, buffer_bytes: int, bandwidth: float | None, verify: bool,
        progress: OnProgress | None,
    ) -> None:  # fmt: skip
        self.client = client
        self.tally = Tally(progress)
        self.crew: Crew[_Piece] = Crew(self.tally.tell)
        self.free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        self.sending = Sending(client, self.tally, Bandwidth(bandwidth, self.crew.sleep), lambda offset, length: None)
        self._fd = fd
        self._workers = max(1, min(max_workers, client.options().max_writers))
        self._buffer_bytes = buffer_bytes
        self._verify = verify
        self._size = 0

    def run(self) -> Report:
        """All of it."""
        if not self.client.options().can_write:
            raise ClientError("upload", "the image is read-only", "ask for a writable ticket")
        if self._verify:
            require_checksum(self.client)
        self._size = self.client.size()
        hashes = BlockHashes(self._size, DEFAULT_ALGORITHM, DEFAULT_BLOCK_BYTES)
        hasher = Hasher(hashes) if self._verify else None
        self.tally.set(phase="data", size=self._size, data=self._size)
        for _ in range(self._workers * BUFFERS_A_WORKER):
            self.free.put(memoryview(bytearray(self._buffer_bytes)))
        self.crew.run(self._pieces(hasher), lambda: _Putter(self), self._workers)
        checksum = self._verified(hashes, hasher) if hasher is not None else None
        self.tally.set(phase="done")
        now = self.tally.now()
        return Report("upload", now.size, now.data, 0, now.retries, now.seconds, self.sending.can_flush, checksum)

    def _pieces(self, hasher: Hasher | None) -> Iterator[_Piece]:
        """What comes, one buffer at a time, and zeros after it."""
        at = 0
        while view := self._filled(_wait(self.free, self.crew)):
            if at + len(view) > self._size:
                raise LocalError("standard input", "upload of", f"it is larger than the image's {self._size} bytes",
                                 "make a larger image")  # fmt: skip
            if hasher is not None:
                hasher.feed(at, view)
            yield _Piece(at, len(view), view)
            at += len(view)
        if at < self._size:
            yield _Piece(at, self._size - at)

    def _filled(self, buffer: memoryview) -> memoryview:
        """As much as comes until the buffer is full or the pipe ends."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        at = 0
        try:
            while at < len(buffer):
                if not poll.poll(POLL_MS):
                    self.crew.sleep(0)
                    continue
                count = os.readv(self._fd, [buffer[at:]])
                if not count:
                    break
                at += count
        except OSError as error:
            raise LocalError.from_os("standard input", "reading", error, "see where it comes from") from error
        return buffer[:at]

    def _verified(self, hashes: BlockHashes, hasher: Hasher) -> Checksum:
        hasher.finish()
        return compare_moved(self.client, hashes, self.tally, "the image itself")


class _Putter:
    """One connection that writes what buffers hold."""

    def __init__(self, job: _In) -> None:
        self._job = job
        self._client = job.client.again(job.crew.sleep)
        self._sender = Sender(job.sending, self._client, self._cannot)

    def do(self, piece: _Piece) -> None:
        """One piece."""
        if piece.view is None:
            self._sender.zero(piece.offset, piece.length)
        else:
            self._sender.write(piece.offset, piece.view)
            self._job.free.put(_whole(piece.view))
        self._job.tally.moved(piece.length)

    def _cannot(self, ranges: Ranges) -> None:
        if list(ranges):
            why = f"the image's server was lost, and with it perhaps {ranges.bytes} bytes that came by the pipe"
            raise ClientError("flush", why, "upload again")

    def finish(self) -> None:
        """Flush what this connection has written."""
        self._sender.flush()

    def abort(self) -> None:
        """End the connection."""
        self._client.abort()

    def close(self) -> None:
        """Give everything back."""
        self._client.close()


def _wait(free: queue.SimpleQueue[memoryview], crew: Crew[_Piece]) -> memoryview:
    """A buffer, when there is one. Raises Stopped."""
    while True:
        try:
            return free.get(timeout=POLL_MS / 1000)
        except queue.Empty:
            crew.sleep(0)


def _whole(view: memoryview) -> memoryview:
    """The buffer that a view is the beginning of."""
    return memoryview(view.obj)
