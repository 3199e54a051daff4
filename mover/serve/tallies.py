"""Tallies, as the supervisor holds them: memory that outlives every process that counts in it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from workers.lane import memory
from workers.lane.tally import Layout, words_of


class KeptTally:
    """A tally's memfd and its words; zeros at first."""

    def __init__(self, layout: Layout) -> None:
        self.fd = memory.create("mover-tally", layout.size_bytes)
        self._words = words_of(memory.map_shared(self.fd, layout.size_bytes))

    def words(self) -> Sequence[int]:
        """What has been counted up to now."""
        return self._words.tolist()

    def close(self) -> None:
        """Give the memory back."""
        self._words.release()
        os.close(self.fd)
