"""A set of bytes of an image, kept as sorted ranges that neither overlap nor touch."""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

Range = tuple[int, int]


class RangeSet:
    """Half-open ranges (offset, length) in bytes, merged.

    Writes complete almost in order, so adding at the end costs O(1); anywhere else it is a bisection.
    Every length given must be at least 1.
    """

    __slots__ = ("_ends", "_starts")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for offset, length in ranges:
            self.add(offset, length)

    def __iter__(self) -> Iterator[Range]:
        """Ranges as (offset, length), in order."""
        return ((start, end - start) for start, end in zip(self._starts, self._ends, strict=True))

    def __len__(self) -> int:
        return len(self._starts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RangeSet):
            return NotImplemented
        return self._starts == other._starts and self._ends == other._ends

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"RangeSet({list(self)})"

    def add(self, offset: int, length: int) -> None:
        """Put the range in; it joins what it overlaps or touches."""
        end = offset + length
        ends = self._ends
        if not ends or offset > ends[-1]:
            self._starts.append(offset)
            ends.append(end)
        elif offset == ends[-1]:
            ends[-1] = end
        else:
            self._join(offset, end)

    def _join(self, start: int, end: int) -> None:
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def remove(self, offset: int, length: int) -> None:
        """Take the range out, as far as it is in."""
        end = offset + length
        first = bisect_right(self._ends, offset)
        last = bisect_left(self._starts, end)
        if first >= last:
            return
        left, right = self._starts[first], self._ends[last - 1]
        kept = [(start, stop) for start, stop in ((left, offset), (end, right)) if start < stop]
        self._starts[first:last] = [start for start, _ in kept]
        self._ends[first:last] = [stop for _, stop in kept]

    def update(self, other: RangeSet) -> None:
        """Put all of `other` in."""
        for offset, length in other:
            self.add(offset, length)

    def clear(self) -> None:
        """Take everything out."""
        self._starts.clear()
        self._ends.clear()

    def gaps(self) -> list[int]:
        """The bytes missing between each range and the next: one number fewer than there are ranges."""
        return [start - end for start, end in zip(self._starts[1:], self._ends, strict=False)]

    def thin(self, most: int) -> None:
        """Leave at most `most` ranges by filling the smallest gaps: more bytes are in then, never fewer."""
        gaps = self.gaps()
        self.fill(heapq.nsmallest(len(self) - most, range(len(gaps)), gaps.__getitem__))

    def fill(self, gaps: Iterable[int]) -> None:
        """Put in the gaps with these numbers, counted as in `gaps()`."""
        filled = set(gaps)
        self._starts = [start for index, start in enumerate(self._starts) if index - 1 not in filled]
        self._ends = [end for index, end in enumerate(self._ends) if index not in filled]
