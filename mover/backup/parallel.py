"""Pieces of work done by several threads, until they are done or one fails: the first error wins."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

Work = Callable[[T], int]
"""Does one piece and returns the bytes it counts for."""
Progress = Callable[[int, int], None]
"""Called in the caller's thread, now and then, with the bytes that are done and those that are to be done in all."""
PROGRESS_S = 0.1
# Of work on files: the processors' share of hashing, and a disk that has something to do meanwhile.
THREADS = 4


def nothing(done_bytes: int, total_bytes: int) -> None:
    """No progress is wanted."""


def of_total(progress: Progress, total_bytes: int, before_bytes: int = 0) -> Callable[[int], None]:
    """What in_parallel is given: `before_bytes` of the total were done before."""
    return lambda done_bytes: progress(before_bytes + done_bytes, total_bytes)


class _Crew(Generic[T]):
    def __init__(self, pieces: Iterable[T]) -> None:
        self._pieces = iter(pieces)
        self._lock = threading.Lock()
        self.done_bytes = 0
        self.error: BaseException | None = None

    def take(self) -> T | None:
        """The next piece; None when there is none, or one has failed."""
        with self._lock:
            return None if self.error is not None else next(self._pieces, None)

    def run(self, work: Work[T]) -> None:
        """One thread's part."""
        try:
            while (piece := self.take()) is not None:
                done = work(piece)
                with self._lock:
                    self.done_bytes += done
        except BaseException as error:  # noqa: BLE001 - it is raised again in the caller's thread
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """Keep the first error; nobody begins another piece."""
        with self._lock:
            self.error = self.error or error


def in_parallel(
    pieces: Iterable[T], workers: Sequence[Work[T]], done: Callable[[int], None], stop: Callable[[], None]
) -> None:
    """Have `workers`, a thread each, do all the pieces. Raises the first error, when every thread has ended.

    `done` gets the bytes that are done, now and then, in the caller's thread. `stop` is called when something has
    failed, or the caller is interrupted: it makes what is under way end soon.
    """
    crew = _Crew(pieces)
    threads = [threading.Thread(target=crew.run, args=(work,), daemon=True) for work in workers]
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) and crew.error is None:
            for thread in threads:
                if thread.is_alive():
                    thread.join(PROGRESS_S)
                    break
            done(crew.done_bytes)
    except BaseException as error:
        crew.fail(error)
        raise
    finally:
        if crew.error is not None:
            stop()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    if crew.error is not None:
        raise crew.error
    done(crew.done_bytes)


def in_threads(pieces: Sequence[T], new_worker: Callable[[], Work[T]], done: Callable[[int], None]) -> None:
    """The same for work on files: as many threads as make sense, and nothing to be stopped."""
    workers = [new_worker() for _ in range(min(THREADS, len(pieces)))]
    in_parallel(pieces, workers, done, lambda: None)


def new_buffer(length: int) -> memoryview:
    """Memory that is taken only as far as it is used."""
    return memoryview(mmap.mmap(-1, length))
