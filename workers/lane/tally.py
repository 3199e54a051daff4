"""Counters in shared memory: one process counts, another one reads at any time, also when the first one is dead.

A tally is a memfd of 64-bit words that the supervisor makes and keeps. A process that takes the place of a dead one
goes on counting in the same words, so nothing is lost with a process, and nothing counts twice. To count is one
addition (40 ns; prometheus_client's own counter takes 700), so requests can afford it.

A Layout names the words. Durations are counted in nanoseconds, in buckets that double or so.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import msgspec

WORD_BYTES = 8
PAGE_BYTES = 4096

# 50 µs is a small read from memory, a minute is front.progress_s.
BUCKETS_S = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0,
)  # fmt: skip
_BOUNDS_NS = tuple(round(bound * 1e9) for bound in BUCKETS_S)
# A count for each bucket, one for what is longer, and the sum.
_HISTOGRAM_WORDS = len(BUCKETS_S) + 2


class Family(msgspec.Struct, frozen=True):
    """One metric: words for each combination of its labels' values, from `first` on."""

    name: str
    help: str
    labels: Mapping[str, Sequence[str]]
    first: int
    is_histogram: bool = False

    @property
    def step(self) -> int:
        """Words of one combination."""
        return _HISTOGRAM_WORDS if self.is_histogram else 1

    def at(self, **values: str) -> int:
        """The (first) word of a combination. Raises ValueError for a value that the layout does not know."""
        number = 0
        for label, known in self.labels.items():
            number = number * len(known) + known.index(values[label])
        return self.first + number * self.step

    def rows(self) -> Iterator[tuple[tuple[str, ...], int]]:
        """Every combination of values, and its first word."""
        for number, values in enumerate(product(*self.labels.values())):
            yield values, self.first + number * self.step


class Layout:
    """The metrics of one kind of process, and where their words are."""

    def __init__(self) -> None:
        self.families: list[Family] = []
        self._words = 0

    def counter(self, name: str, help: str, **labels: Sequence[str]) -> Family:
        """What only grows."""
        return self._add(Family(name, help, labels, self._words))

    def histogram(self, name: str, help: str, **labels: Sequence[str]) -> Family:
        """Durations."""
        return self._add(Family(name, help, labels, self._words, is_histogram=True))

    def _add(self, family: Family) -> Family:
        self.families.append(family)
        self._words += family.step * sum(1 for _ in family.rows())
        return family

    @property
    def size_bytes(self) -> int:
        """Of a tally, in whole pages."""
        return -(-self._words * WORD_BYTES // PAGE_BYTES) * PAGE_BYTES


class Durations:
    """One histogram of a tally, as the process that counts has it."""

    __slots__ = ("_first", "_sum", "_words")

    def __init__(self, words: memoryview, first: int) -> None:
        self._words = words
        self._first = first
        self._sum = first + len(BUCKETS_S) + 1

    def add(self, duration_ns: int) -> None:
        """One more of this duration."""
        words = self._words
        words[self._first + bisect_left(_BOUNDS_NS, duration_ns)] += 1
        words[self._sum] += duration_ns

    def since(self, began_ns: int) -> None:
        """One more that began then (time.monotonic_ns) and ends now."""
        self.add(time.monotonic_ns() - began_ns)


def words_of(memory: memoryview) -> memoryview:
    """The words of a tally's memory."""
    return memory.cast("Q")


def unshared(layout: Layout) -> memoryview:
    """The words of a tally that nobody else sees."""
    return words_of(memoryview(bytearray(layout.size_bytes)))


def histogram_of(words: Sequence[int], first: int) -> tuple[list[int], float]:
    """The counts of a histogram's buckets, the one without a bound last, and the sum in seconds."""
    counts = list(words[first : first + len(BUCKETS_S) + 1])
    return counts, words[first + len(BUCKETS_S) + 1] / 1e9
