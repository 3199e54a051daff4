"""Pieces of work on files, shared by threads."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from mover.client.crew import MAX_WORKERS, Crew
from mover.client.progress import Tally

T = TypeVar("T")

Work = Callable[[T], int]
"""Does one piece and returns the bytes of data in it."""


class _Hand(Generic[T]):
    """A Crew's worker that has nothing to be closed or stopped."""

    def __init__(self, work: Work[T], tally: Tally) -> None:
        self._work = work
        self._tally = tally

    def do(self, task: T) -> None:
        self._tally.moved(self._work(task))

    def finish(self) -> None:
        pass

    def abort(self) -> None:
        pass

    def close(self) -> None:
        pass


def in_threads(pieces: Sequence[T], new_work: Callable[[], Work[T]], tally: Tally) -> None:
    """Have all the pieces done, by as many threads as make sense. Raises the first error, when all have ended."""
    crew: Crew[T] = Crew(tally.tell)
    crew.run(pieces, lambda: _Hand(new_work(), tally), min(MAX_WORKERS, len(pieces)))


def new_buffer(length: int) -> memoryview:
    """Memory that is taken only as far as it is used."""
    return memoryview(mmap.mmap(-1, length))
