"""A set of bytes of an image, kept as sorted ranges that neither overlap nor touch."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

Range = tuple[int, int]
"""Offset and length, half-open."""


class Ranges:
    """What is added is merged. Not safe for threads by itself."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for offset, length in ranges:
            self.add(offset, length)

    def __iter__(self) -> Iterator[Range]:
        """In order."""
        return ((start, end - start) for start, end in zip(self._starts, self._ends, strict=True))

    def __repr__(self) -> str:
        return f"Ranges({list(self)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranges) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # it changes

    @property
    def bytes(self) -> int:
        """How many there are in all."""
        return sum(self._ends) - sum(self._starts)

    def add(self, offset: int, length: int) -> None:
        """Put a range in; it joins what it overlaps or touches."""
        start, end = offset, offset + length
        first, last = bisect_left(self._ends, start), bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        if start < end:
            self._starts[first:last], self._ends[first:last] = [start], [end]

    def remove(self, offset: int, length: int) -> None:
        """Take a range out, as far as it is in."""
        end = offset + length
        first, last = bisect_right(self._ends, offset), bisect_left(self._starts, end)
        if first < last:
            around = ((self._starts[first], offset), (end, self._ends[last - 1]))
            kept = [part for part in around if part[0] < part[1]]
            self._starts[first:last] = [start for start, _ in kept]
            self._ends[first:last] = [stop for _, stop in kept]

    def parts(self, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        """The range cut into parts (offset, length, whether it is in), in order."""
        at, end = offset, offset + length
        index = bisect_right(self._ends, at)
        while at < end:
            start, stop = self._range(index, end)
            if at < start:
                yield at, min(start, end) - at, False
            if start < end:
                yield max(at, start), min(stop, end) - max(at, start), True
            at = stop
            index += 1

    def _range(self, index: int, end: int) -> tuple[int, int]:
        return (self._starts[index], self._ends[index]) if index < len(self._starts) else (end, end)
