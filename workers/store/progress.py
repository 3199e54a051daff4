"""Which bytes of an upload have come, which are written, and which are durable. Rules, no I/O.

0 ........ kept ........ written ........ arrived
           durable       all before       the next WRITE begins here
"""

from __future__ import annotations

# How far hashing may be behind before slots are given back without it, and the bytes read again: what a resumed
# upload had before is hashed at 0.8 GB/s or so, and its client should not have to wait for that.
BEHIND_BYTES = 64 * 1024 * 1024
# So many bytes are made durable, and remembered, at a time.
KEEP_BYTES = 256 * 1024 * 1024


class Progress:
    """Of an upload that began, or goes on, at `offset`; all numbers are bytes of the image."""

    def __init__(self, offset: int) -> None:
        self.arrived = self.written = self.kept = offset
        self._ahead: dict[int, int] = {}  # what is written beyond the prefix: offset and end

    def arrive(self, length: int) -> None:
        """The next bytes have come."""
        self.arrived += length

    def write(self, offset: int, length: int) -> None:
        """Bytes are written; pieces may end in any order."""
        self._ahead[offset] = offset + length
        while (end := self._ahead.pop(self.written, None)) is not None:
            self.written = end

    @property
    def keep_due(self) -> bool:
        """It is time to make durable what has come."""
        return self.written - self.kept >= KEEP_BYTES

    def hashes_slots(self, fed: int, behind: int) -> bool:
        """Whether the bytes that come now are hashed from their slot, since the digests have been fed all before.

        Else they are read again when they are written.
        """
        return fed == self.arrived and behind <= BEHIND_BYTES
