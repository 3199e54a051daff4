"""Blocks of an object that a reader who goes on will want next: one request each, where slots are many.

    slots     │ 1 MiB │ 1 MiB │ 1 MiB │ 1 MiB │ ...      as clients take them
    blocks    │            4 MiB              │ ...      as the server gives them, several at a time

A server's answer costs much the same for 1 MiB as for 4 (Swift on one core: 27 ms and 45 ms), so whoever reads on is
read for. What begins where nothing has ended is read as it is asked for.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future

from workers.store.objects.pool import Pool

BLOCK_BYTES = 4 * 1024 * 1024
# Requests at a time, and blocks that are held in all: 32 MiB.
PARALLEL, BLOCKS_MOST = 4, 8
# Of so many reads it is remembered where they ended.
ENDS = 32


class ReadAhead:
    """One object of `size` bytes; `fetch(offset, length)` gets bytes of it, and raises OSError."""

    def __init__(self, size: int, fetch: Callable[[int, int], bytes]) -> None:
        self._size = size
        self._fetch = fetch
        self._threads = Pool("block", PARALLEL)
        self._lock = threading.Lock()
        self._blocks: OrderedDict[int, _Block] = OrderedDict()
        self._ends: deque[int] = deque(maxlen=ENDS)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill the buffer. Raises OSError."""
        end = offset + len(buffer)
        with self._lock:
            goes_on = offset in self._ends or offset // BLOCK_BYTES in self._blocks
            self._ends.append(end)
        if not goes_on:
            buffer[:] = self._fetch(offset, len(buffer))
            return
        while offset < end:
            number, begins = divmod(offset, BLOCK_BYTES)
            length = min(end - offset, BLOCK_BYTES - begins)
            with self._lock:
                ours = number not in self._blocks
                block = self._wanted(number)
            into = buffer[len(buffer) - (end - offset) :][:length]
            try:
                into[:] = memoryview(block.future.result())[begins : begins + length]
            except OSError:
                self._taken(number, block, BLOCK_BYTES)
                if ours:
                    raise
                into[:] = self._fetch(offset, length)  # it has failed for somebody else, perhaps a while ago
            else:
                self._taken(number, block, length)
            offset += length

    def _wanted(self, number: int) -> _Block:
        """The block, and those after it on their way if there is room for them."""
        block = self._block(number)
        for after in range(number + 1, number + 1 + PARALLEL):
            if after * BLOCK_BYTES < self._size and len(self._blocks) < BLOCKS_MOST:
                self._block(after)
        return block

    def _block(self, number: int) -> _Block:
        block = self._blocks.get(number)
        if block is None:
            while len(self._blocks) >= BLOCKS_MOST:
                self._blocks.popitem(last=False)
            begins = number * BLOCK_BYTES
            length = min(BLOCK_BYTES, self._size - begins)
            block = self._blocks[number] = _Block(self._threads.submit(lambda: self._fetch(begins, length)), length)
        return block

    def _taken(self, number: int, block: _Block, length: int) -> None:
        """A block that has been read, or could not be, is not kept."""
        with self._lock:
            block.left -= length
            if block.left <= 0 and self._blocks.get(number) is block:
                del self._blocks[number]

    def close(self) -> None:
        """Nobody reads any more; what is under way ends by itself."""
        self._threads.close(wait=False)
        self._blocks.clear()


class _Block:
    """`left`: bytes that nobody has taken."""

    def __init__(self, future: Future[bytes], length: int) -> None:
        self.future = future
        self.left = length
