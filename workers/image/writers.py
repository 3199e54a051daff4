"""Who has written since a ledger was last empty: a page behind the ledger, in its file, that outlives the host, too.

Nobody syncs the ledger itself; when the host dies, its last half minute may not be on the disk. So the first write of
each transfer is followed by one sync of this page before anybody hears of it. After such a death the transfers that
stand here are told that all of their image may be lost: too much, but never too little.
"""

from __future__ import annotations

import mmap
import struct

from workers.image.ledger import LEDGER_BYTES

PAGE_BYTES = mmap.PAGESIZE
PAGE_AT = -(-LEDGER_BYTES // PAGE_BYTES) * PAGE_BYTES
# The ledger and this page.
FILE_BYTES = PAGE_AT + PAGE_BYTES
ENTRY = struct.Struct("=I")
# There was no room for all of them: it can be any.
ANY = 2**32 - 1


class Writers:
    """The writing end, in the worker: `buffer` is the mapping of the whole file."""

    def __init__(self, buffer: memoryview) -> None:
        self._page = buffer[PAGE_AT:FILE_BYTES]
        self._mapping = buffer.obj
        self._noted = set(noted(self._page))

    def __contains__(self, transfer: int) -> bool:
        return transfer in self._noted or ANY in self._noted

    def note(self, transfer: int) -> None:
        """This one has written; it is on the disk when this returns. Raises OSError."""
        at = len(self._noted) * ENTRY.size
        if at + ENTRY.size > PAGE_BYTES:
            at, transfer = 0, ANY
        ENTRY.pack_into(self._page, at, transfer)
        self._noted.add(transfer)
        assert isinstance(self._mapping, mmap.mmap)
        self._mapping.flush(PAGE_AT, PAGE_BYTES)


def noted(page: bytes | memoryview) -> list[int]:
    """The transfers that stand in a page; ANY if they did not all find room."""
    return [transfer for (transfer,) in ENTRY.iter_unpack(page[: len(page) - len(page) % ENTRY.size]) if transfer]


def clear(buffer: memoryview) -> None:
    """There is nothing left that anybody has written and not flushed."""
    buffer[PAGE_AT:FILE_BYTES] = bytes(PAGE_BYTES)
