"""An image in memory that stands in for a server's, for backups: it changes, and knows what has changed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import cast

from mover.client import Client, Extent, Options
from mover.client.patience import Patience, Sleep

GRANULARITY = 64 * 1024


class MemoryImage:
    """Bytes, and what is dirty of them since the last `begin`, in units of `granularity`."""

    url = "http://127.0.0.1:1/images/memory"

    def __init__(self, size_bytes: int, granularity: int = GRANULARITY) -> None:
        self.data = bytearray(size_bytes)
        self._granularity = granularity
        self._dirty: set[int] = set()
        self._edges: set[int] = set()

    def as_client(self) -> Client:
        """What backups take."""
        return cast(Client, self)

    # -- changing --------------------------------------------------------------------------------------------

    def write(self, offset: int, data: bytes) -> None:
        """As a guest does."""
        self.data[offset : offset + len(data)] = data
        self._edges |= {offset, offset + len(data)}
        self._dirty |= set(range(offset // self._granularity, -(-(offset + len(data)) // self._granularity)))

    def resize(self, size_bytes: int) -> None:
        """Larger by zeros, or smaller."""
        del self.data[size_bytes:]
        self.data.extend(bytes(size_bytes - len(self.data)))
        self._dirty = {number for number in self._dirty if number * self._granularity < size_bytes}

    def begin(self) -> None:
        """Nothing is dirty from now on."""
        self._dirty.clear()

    # -- as a Client -----------------------------------------------------------------------------------------

    def size(self) -> int:
        """As Client has it."""
        return len(self.data)

    def options(self) -> Options:
        """As Client has it."""
        return Options(features=frozenset({"extents"}))

    def extents(self, context: str = "zero") -> Iterator[Extent]:
        """As Client has it: cut wherever a write began or ended, and at each unit of the bitmap."""
        size = len(self.data)
        units = range(0, size, self._granularity)
        edges = sorted({edge for edge in (*self._edges, *units, size) if edge <= size})
        for start, end in pairwise(edges):
            zero = not any(self.data[start:end])
            dirty = start // self._granularity in self._dirty if context == "dirty" else None
            yield Extent(start, end - start, zero, dirty=dirty)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """As Client has it."""
        buffer[:] = self.data[offset : offset + len(buffer)]

    def patience(self) -> Patience:
        """As Client has it."""
        return Patience(0.0, time.sleep)

    def again(self, sleep: Sleep | None = None) -> MemoryImage:
        """As Client has it."""
        return self

    def abort(self) -> None:
        """As Client has it."""

    def close(self) -> None:
        """As Client has it."""
