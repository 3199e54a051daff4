"""A ring: one producer, one consumer, cells of fixed size in shared memory.

    words   head (producer's, cells ever written) · tail (consumer's, cells ever read)
    cells   cell i of the stream stands at i modulo the ring's size

The producer writes the cell, then publishes it by storing the head, one aligned word. Neither side ever
stores into the other's word, so a kill between any two stores leaves a ring that is whole: a cell was either
published or it was not. On x86-64 stores become visible in their order; the sequence number at each cell's
end would show a cell that did not.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from workers.lane.protocol import CELL_BYTES, COMPLETION_CELL, JOB_CELL

# Words are eight bytes; they lie a cache line (eight words) apart, so that the two sides do not fight for one.
WORD_STRIDE = 8
SUBMISSION_HEAD, SUBMISSION_TAIL, COMPLETION_HEAD, COMPLETION_TAIL, WRITES = range(0, 5 * WORD_STRIDE, WORD_STRIDE)
HEADER_BYTES = 4096


class RingBroken(Exception):
    """The other side published what cannot be: a head behind or too far ahead, a cell of another sequence."""

    def __init__(self, what: str, value: int, expected: int) -> None:
        super().__init__(f"{what} is {value}, expected {expected}")
        self.value = value
        self.expected = expected


def rings_bytes(cells: int) -> int:
    """The size of the memory that holds both rings."""
    return HEADER_BYTES + 2 * cells * CELL_BYTES


class Producer:
    """The writing side of one ring."""

    def __init__(self, words: memoryview, head: int, tail: int, cells: memoryview, cell: struct.Struct) -> None:
        self._words, self._head_word, self._tail_word = words, head, tail
        self._cells, self._count = cells, len(cells) // CELL_BYTES
        self._pack = cell.pack_into
        self._head = words[head]

    def push(self, *fields: int) -> bool:
        """Publish one cell; False when the ring is full."""
        head = self._head
        if head - self._words[self._tail_word] >= self._count:
            return False
        self._pack(self._cells, head % self._count * CELL_BYTES, *fields, head)
        self._head = head + 1
        self._words[self._head_word] = head + 1
        return True


class Consumer:
    """The reading side of one ring."""

    def __init__(self, words: memoryview, head: int, tail: int, cells: memoryview, cell: struct.Struct) -> None:
        self._words, self._head_word, self._tail_word = words, head, tail
        self._cells, self._count = cells, len(cells) // CELL_BYTES
        self._unpack = cell.unpack_from
        self._tail = words[tail]

    def pop_all(self) -> Iterator[tuple[Any, ...]]:
        """Every cell published so far, without its sequence number. Raises RingBroken."""
        head = self._words[self._head_word]
        if not 0 <= head - self._tail <= self._count:
            raise RingBroken("head", head, self._tail)
        while self._tail < head:
            *fields, sequence = self._unpack(self._cells, self._tail % self._count * CELL_BYTES)
            if sequence != self._tail:
                raise RingBroken("sequence", sequence, self._tail)
            self._tail += 1
            self._words[self._tail_word] = self._tail
            yield tuple(fields)


class Rings:
    """Both rings of one attachment, on one memory of `rings_bytes(cells)` bytes that begins as zeros."""

    def __init__(self, memory: memoryview, cells: int) -> None:
        self._memory = memory
        self.words = memory[:HEADER_BYTES].cast("Q")
        middle = HEADER_BYTES + cells * CELL_BYTES
        self._submissions = memory[HEADER_BYTES:middle]
        self._completions = memory[middle : middle + cells * CELL_BYTES]

    def front_end(self) -> tuple[Producer, Consumer]:
        """The front end's sides: it submits jobs and reads completions."""
        return (
            Producer(self.words, SUBMISSION_HEAD, SUBMISSION_TAIL, self._submissions, JOB_CELL),
            Consumer(self.words, COMPLETION_HEAD, COMPLETION_TAIL, self._completions, COMPLETION_CELL),
        )

    def worker(self) -> tuple[Consumer, Producer]:
        """The worker's sides: it reads jobs and publishes completions."""
        return (
            Consumer(self.words, SUBMISSION_HEAD, SUBMISSION_TAIL, self._submissions, JOB_CELL),
            Producer(self.words, COMPLETION_HEAD, COMPLETION_TAIL, self._completions, COMPLETION_CELL),
        )
