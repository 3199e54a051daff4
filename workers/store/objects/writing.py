"""Objects in pieces that are sent by threads, at most so many at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from workers.store.objects.pool import Pool

MIB = 1024 * 1024
# Parts of one upload that are sent at a time, and the memory that they may take together.
PARALLEL, PARALLEL_BYTES = 4, 64 * MIB


def parallel(part_bytes: int) -> int:
    """How many parts of this size are sent at a time."""
    return max(1, min(PARALLEL, PARALLEL_BYTES // part_bytes))


class Pieces:
    """Cuts what comes into pieces of one size; the last one is what is left."""

    def __init__(self, length: int, send: Callable[[bytes], None]) -> None:
        self._length = length
        self._send = send
        self._held: list[bytes] = []
        self._held_bytes = 0

    def add(self, data: bytes) -> None:
        """The next bytes; sends what is full."""
        while self._held_bytes + len(data) >= self._length:
            room = self._length - self._held_bytes
            self._held.append(data[:room])
            data = data[room:]
            self.flush()
        if data:
            self._held.append(data)
            self._held_bytes += len(data)

    def flush(self) -> None:
        """Send what is left, if anything is."""
        if self._held:
            self._send(self.rest())

    def rest(self) -> bytes:
        """What is left, which is the caller's now."""
        piece = b"".join(self._held)
        self._held, self._held_bytes = [], 0
        return piece


class Segments(Protocol):
    """Where pieces go. Each call raises OSError."""

    def put_piece(self, number: int, data: bytes) -> None:
        """One of several."""

    def put_whole(self, data: bytes) -> None:
        """The only one: it is the object."""

    def compose(self, sizes: list[int]) -> None:
        """Make one object of those that were put, whose sizes these are."""


class SegmentWriter:
    """Sends piece after piece as objects of their own, and makes one object of them."""

    def __init__(self, part_bytes: int, segments: Segments) -> None:
        self._pieces = Pieces(part_bytes, self._send)
        self._segments = segments
        self._sizes: list[int] = []
        self._room = threading.Semaphore(parallel(part_bytes))
        self._threads = Pool("segment", parallel(part_bytes))
        self._error: BaseException | None = None
        self._stopped = False

    def write(self, data: bytes) -> None:
        """The next bytes; waits while as many pieces are under way as may be."""
        self._pieces.add(data)
        self._check()

    def _check(self) -> None:
        if isinstance(self._error, OSError):
            raise OSError(self._error.errno, self._error.strerror)
        if self._error is not None:
            raise self._error

    def _send(self, piece: bytes) -> None:
        self._room.acquire()
        number = len(self._sizes)
        self._sizes.append(len(piece))
        self._threads.submit(lambda: self._segments.put_piece(number, piece)).add_done_callback(self._sent)

    def _sent(self, future: Future[None]) -> None:
        self._error = self._error or future.exception()
        self._room.release()

    def close(self) -> None:
        """Send what is left, wait for all, and compose."""
        if not self._sizes:
            self.stop()
            self._segments.put_whole(self._pieces.rest())
            return
        self._pieces.flush()
        self.stop()
        self._check()
        self._segments.compose(self._sizes)

    def stop(self) -> None:
        """Wait for what is under way."""
        if self._stopped:
            return
        self._stopped = True
        self._threads.close(wait=True)
