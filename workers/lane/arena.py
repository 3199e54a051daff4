"""The memory that bytes travel in: a memfd of slots, of one lane, or of two between which bytes are handed on."""

from __future__ import annotations

import os

from workers.lane import memory
from workers.lane.slots import Slots


class Arena:
    """`count` slots of `slot_bytes`, of which one request has `request_slots` at most; it goes with its last lane.

    Lanes that share an arena share its table of owners: what one's worker fills, the other's worker may be given as it
    is, and a slot that one worker may still write into is nobody's before that worker is done with it, or dead.
    """

    def __init__(self, number: int, count: int, slot_bytes: int, request_slots: int) -> None:
        self.slot_bytes = slot_bytes
        self.slots = Slots(count, request_slots)
        self.fd = memory.create(f"mover-arena-{number}", count * slot_bytes)
        arena = memory.map_shared(self.fd, count * slot_bytes)
        self.views = [arena[at : at + slot_bytes] for at in range(0, count * slot_bytes, slot_bytes)]
        self._lanes = 0

    def enter(self) -> None:
        """One lane more has it."""
        self._lanes += 1

    def leave(self) -> None:
        """A lane is closed."""
        self._lanes -= 1
        if not self._lanes:
            os.close(self.fd)
