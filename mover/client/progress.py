"""How far a job is, and how fast it may go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from mover.client.client import Checksum


@dataclass(frozen=True)
class Progress:
    """A job at one moment; all sizes in bytes.

    `phase`: "extents", "data", "flush", "checksum", "done". Of `size`, `data` is to be moved and the rest is zeros;
    of `data`, `done` is where it should be, `resumed` of it since an earlier run. `retries` counts what failed and
    was tried again.
    """

    phase: str = "extents"
    size: int = 0
    data: int = 0
    done: int = 0
    resumed: int = 0
    retries: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Bytes a second in this run."""
        return (self.done - self.resumed) / self.seconds if self.seconds else 0.0

    @property
    def remaining_s(self) -> float | None:
        """How long the rest will take at this rate; None where it cannot be said."""
        return (self.data - self.done) / self.rate if self.rate else None

    @property
    def saved(self) -> int:
        """Bytes that need not be moved, since they are zeros."""
        return self.size - self.data


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Report:
    """What a job did. `flushed`: the bytes are durable, where they went. `checksum` is there if it was verified."""

    job: str
    size: int
    data: int
    resumed: int
    retries: int
    seconds: float
    flushed: bool
    checksum: Checksum | None = None


class Tally:
    """Counts for all workers of a job."""

    def __init__(self, on_progress: OnProgress | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._on_progress = on_progress
        self._clock = clock
        self._began = clock()
        self._lock = threading.Lock()
        self._now = Progress()

    def set(self, **facts: int | str) -> None:
        """Phase, size, data, done, resumed; from the job's own thread."""
        with self._lock:
            self._now = replace(self._now, **facts)  # type: ignore[arg-type]  # as named above
        self.tell()

    def moved(self, length: int) -> None:
        """Bytes of data are where they should be; from any thread."""
        with self._lock:
            self._now = replace(self._now, done=self._now.done + length)

    def retried(self) -> None:
        """Something is tried again; from any thread."""
        with self._lock:
            self._now = replace(self._now, retries=self._now.retries + 1)

    def now(self) -> Progress:
        """As it stands."""
        with self._lock:
            return replace(self._now, seconds=self._clock() - self._began)

    def tell(self) -> None:
        """Call whoever wants to know; from the job's own thread."""
        if self._on_progress is not None:
            self._on_progress(self.now())


class Bandwidth:
    """So many bytes a second for all workers together."""

    def __init__(
        self, bytes_a_second: float | None, sleep: Callable[[float], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = bytes_a_second
        self._sleep = sleep
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at = clock()

    def take(self, length: int) -> None:
        """Wait until these bytes may be moved."""
        if self._rate is None:
            return
        with self._lock:
            at = max(self._clock(), self._free_at)
            self._free_at = at + length / self._rate
        wait = at - self._clock()
        if wait > 0:
            self._sleep(wait)
