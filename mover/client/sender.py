"""What one connection writes into an image, and the flush that makes it durable.

A loss is told once, to whoever flushes first, and may be of what another connection wrote. So from asking for a flush
until what it lost is written again, no other flush is asked for: it would be taken for a good one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from mover.client import zeros
from mover.client.client import Client
from mover.client.errors import BrokenError, LostWritesError, RangeError
from mover.client.progress import Bandwidth, Tally
from mover.client.ranges import Range, Ranges

# Only what is flushed is done for good: a job that is killed has this much to do again.
FLUSH_S = 5.0
# One request to zero: long ones would look like a server that is stuck.
ZERO_BYTES = 1 << 30
# Zeros within data are worth a request of their own from here on.
ZERO_GRAIN_BYTES = 256 * 1024

Rewrite = Callable[[Ranges], None]
Flushed = Callable[[int, int], None]


class Sending:
    """What all senders of one job share. `flushed` is called with offset and length of what is durable."""

    def __init__(self, client: Client, tally: Tally, bandwidth: Bandwidth, flushed: Flushed) -> None:
        features = client.options().features
        self.can_zero = "zero" in features
        self.can_flush = "flush" in features
        self.tally = tally
        self.bandwidth = bandwidth
        self.flushed = flushed
        self.flushing = threading.Lock()
        self._unflushed = Ranges()
        self._lock = threading.Lock()

    def written(self, offset: int, length: int) -> None:
        """Not flushed yet."""
        with self._lock:
            self._unflushed.add(offset, length)

    def forget(self, ranges: Iterable[Range]) -> None:
        """They are flushed."""
        with self._lock:
            for offset, length in ranges:
                self._unflushed.remove(offset, length)

    def unflushed(self) -> Ranges:
        """What all have written and nobody has flushed."""
        with self._lock:
            return Ranges(self._unflushed)


class Sender:
    """One connection's. `rewrite` writes ranges again, by this sender."""

    def __init__(self, shared: Sending, client: Client, rewrite: Rewrite) -> None:
        self._shared = shared
        self._client = client
        self._rewrite = rewrite
        self._patience = client.patience()
        # Written on this connection, or one of its predecessors, since the last flush.
        self._mine = Ranges()
        self._flushed_at = time.monotonic()

    def write(self, offset: int, view: memoryview) -> None:
        """Write the bytes; long runs of zeros among them by a request to zero."""
        for start, length, zero in zeros.runs(view, offset, ZERO_GRAIN_BYTES):
            if zero and self._shared.can_zero:
                self.zero(offset + start, length)
            else:
                self._shared.bandwidth.take(length)
                self._put(offset + start, view[start : start + length])

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros; by writing them, where the server has no other way."""
        step = ZERO_BYTES if self._shared.can_zero else len(zeros.SLAB)
        for at in range(offset, offset + length, step):
            part = min(step, offset + length - at)
            if self._shared.can_zero:
                self._client.zero(at, part)
                self._written(at, part)
            else:
                self._put(at, zeros.SLAB[:part])

    def _put(self, offset: int, view: memoryview) -> None:
        while True:
            try:
                self._client.put(offset, [view])
                break
            except RangeError as error:
                self._patience.failed(error)
                self._shared.tally.retried()
        self._written(offset, len(view))

    def _written(self, offset: int, length: int) -> None:
        self._patience.progressed()
        self._shared.written(offset, length)
        self._mine.add(offset, length)

    def flush_now_and_then(self) -> None:
        """Flush if the last time is long ago."""
        if time.monotonic() - self._flushed_at > FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Flush what this connection has written; what the server says is lost is written again before."""
        with self._shared.flushing:
            if self._shared.can_flush and self._mine.bytes:
                self._flush_until_it_holds()
            flushed = list(self._mine)
            self._shared.forget(flushed)
            for offset, length in flushed:
                self._shared.flushed(offset, length)
            self._mine = Ranges()
        self._flushed_at = time.monotonic()

    def _flush_until_it_holds(self) -> None:
        patience = self._client.patience()
        while True:
            try:
                self._client.flush()
                return
            except LostWritesError as error:
                patience.failed(error)
                lost = Ranges(error.lost)
            except BrokenError as error:
                patience.failed(error)
                # Whether it would have told a loss, nobody knows any more.
                lost = self._shared.unflushed()
            except RangeError as error:
                patience.failed(error)
                lost = Ranges()
            self._shared.tally.retried()
            self._rewrite(lost)
