"""The checksum of an image, as blkhash has it: the hash over the hashes of its blocks.

    image     |  data  |      zero       |  data  | hole |tail|
    blocks    |  0  |  1  |  2  |  3  |  4  |  5  |   6   | 7|      block_bytes each, but for the last one
    hashed       h     h     z     z     h     h      h     h       z: known beforehand, neither read nor hashed
    outer     h(h0 + h1 + z + z + h4 + ...)

Blocks are read ahead into a few buffers, and hashed by threads while others are read. What is read counts towards what
may be read (workers/lane/checksum_format.py); zeros that the server tells of are not read.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Protocol

from workers.image.extents import clip, merge_contexts
from workers.image.plan import Command, Done, Limits, Operation, Plan, pieces
from workers.lane.checksum_format import BLAKE2_DIGEST_BYTES, Asked, answer, readable, wants
from workers.lane.extents_format import ZERO, ExtentsBroken
from workers.nbd_handle import is_zero

# Least that is read ahead: with less in flight the reads wait for each other.
WINDOW_BYTES = 8 * 1024 * 1024
# One read: longer ones would let small ones of other jobs wait for them.
READ_BYTES = 1024 * 1024
# How far ahead extents are asked: what was learned is used within a moment, and 32768 runs at most are kept.
EXTENTS_BYTES = 128 * 1024 * 1024

Block = tuple[int, int, bool]
"""Offset, length, and whether it reads as zeros."""


class Hash(Protocol):
    """What hashlib makes."""

    def update(self, data: bytes) -> None:
        """Take in more."""

    def digest(self) -> bytes:
        """The digest of all."""

    def hexdigest(self) -> str:
        """The same in hexadecimal."""


NewHash = Callable[[bytes | memoryview], Hash]


class HashCommand(Command):
    """Hash the buffer; zeros have a digest already, if they are a whole block."""

    __slots__ = ("digest", "new_hash", "of_zeros")

    def __init__(self, new_hash: NewHash, buffer: memoryview, of_zeros: bytes = b"") -> None:
        super().__init__(Operation.HASH, 0, len(buffer), buffer)
        self.new_hash = new_hash
        self.of_zeros = of_zeros
        self.digest = b""


def hash_buffer(command: Command) -> None:
    """Carry out a HashCommand, in a thread: hashlib lets the others run meanwhile."""
    assert isinstance(command, HashCommand)
    assert command.buffer is not None
    if command.of_zeros and is_zero(command.buffer):
        command.digest = command.of_zeros
    else:
        command.digest = command.new_hash(command.buffer).digest()


def new_hash(algorithm: str) -> NewHash:
    """The constructor of `algorithm`'s hashes, with digests as long as blkhash has them."""
    if algorithm.startswith("blake2"):
        blake2: Callable[..., Hash] = getattr(hashlib, algorithm)
        return lambda data: blake2(data, digest_size=BLAKE2_DIGEST_BYTES)
    return lambda data: hashlib.new(algorithm, data)


class _Reading:
    """A block on its way: read into `buffer`, then hashed. A block of zeros has its digest at once."""

    __slots__ = ("buffer", "digest", "hashing", "reads", "wanted")

    def __init__(self, digest: bytes = b"") -> None:
        self.digest = digest
        self.buffer: memoryview | None = None
        self.wanted = memoryview(b"")
        self.reads: list[Command] = []
        self.hashing: HashCommand | None = None

    @property
    def done(self) -> bytes:
        """The digest, if it is known."""
        return self.digest or (self.hashing.digest if self.hashing is not None else b"")


def checksum(limits: Limits, asked: Asked, threads: int, slot: memoryview) -> Plan:
    """Hash the image and write the hex digest into the slot. It goes on whenever a command has ended, or by GO_ON."""
    new, block = new_hash(asked.algorithm), asked.block_bytes
    zeros = HashCommand(new, memoryview(bytes(min(block, max(limits.size, 1)))))
    yield [zeros]
    while not zeros.answered:
        yield []
    pipeline = _Pipeline(limits, zeros, block, threads, slot)
    at = 0
    while at < limits.size or pipeline.busy:
        if not pipeline.upcoming and at < limits.size:
            end = min(at + EXTENTS_BYTES // block * block, limits.size)
            runs = yield from _runs(limits, at, end)
            pipeline.upcoming.extend(split(runs, at, block))
            at = end
        commands = pipeline.step()
        if pipeline.busy:
            yield commands
    return Done(filled=answer(slot, pipeline.outer.hexdigest()))


class _Pipeline:
    """Blocks in the order of the image: `upcoming` ones, those that are read or hashed now, and the hash of all."""

    def __init__(self, limits: Limits, zeros: HashCommand, block: int, threads: int, slot: memoryview) -> None:
        self.upcoming: deque[Block] = deque()
        self.outer = zeros.new_hash(b"")
        self._limits = limits
        self._zeros = zeros
        self._slot = slot
        self._taken = 0
        self._under_way: deque[_Reading] = deque()
        # An export's blocks that do not fit into these are rounded out.
        margin = 2 * limits.facts.block_bytes if block % limits.facts.block_bytes else 0
        count = max(WINDOW_BYTES // block, threads + 2)
        length = min(block, limits.size) + margin
        self._free = [memoryview(bytearray(length)) for _ in range(min(count, -(-limits.size // block)))]

    @property
    def busy(self) -> bool:
        """Some blocks are not hashed yet."""
        return bool(self._under_way or self.upcoming)

    def step(self) -> list[Command]:
        """Take what has ended; what can begin now."""
        commands: list[Command] = []
        progress = True
        while progress:
            self._fold()
            self._hash_what_is_read(commands)
            progress = self._read_more(commands)
        return commands

    def _fold(self) -> None:
        while self._under_way and (digest := self._under_way[0].done):
            self.outer.update(digest)
            self._free_buffer(self._under_way.popleft())

    def _free_buffer(self, one: _Reading) -> None:
        if one.buffer is not None:
            self._free.append(one.buffer)
            one.buffer = None

    def _hash_what_is_read(self, commands: list[Command]) -> None:
        for one in self._under_way:
            if one.reads and all(read.answered for read in one.reads):
                one.reads = []
                whole = len(one.wanted) == self._zeros.length
                one.hashing = HashCommand(self._zeros.new_hash, one.wanted, self._zeros.digest if whole else b"")
                commands.append(one.hashing)

    def _read_more(self, commands: list[Command]) -> bool:
        """Whether blocks of zeros were taken, which may be all that stands before the end."""
        found_zeros = False
        while self.upcoming and (self._free or self._is_known(self.upcoming[0])):
            offset, length, zero = self.upcoming[0]
            if self._is_known((offset, length, zero)):
                self._under_way.append(_Reading(self._zeros.digest))
                found_zeros = True
            elif self._may_read(length):
                self._read(commands, offset, length)
            else:
                break
            self.upcoming.popleft()
        return found_zeros

    def _may_read(self, length: int) -> bool:
        """Whether a block may be read now; if not, who asked learns that it is wanted."""
        wants(self._slot, self._taken + length)
        return self._taken + length <= readable(self._slot)

    def _is_known(self, block: Block) -> bool:
        _, length, zero = block
        return zero and length == self._zeros.length

    def _read(self, commands: list[Command], offset: int, length: int) -> None:
        start, stop = self._limits.round_out(offset, length)
        one = _Reading()
        one.buffer = self._free.pop()
        one.wanted = one.buffer[offset - start : offset - start + length]
        most = min(READ_BYTES, self._limits.most_bytes)
        one.reads = pieces(Operation.READ, start, one.buffer[: stop - start], most)
        self._under_way.append(one)
        self._taken += length
        commands += one.reads


def _runs(limits: Limits, at: int, end: int) -> Generator[list[Command], None, list[tuple[int, bool]]]:
    """The runs of [at, end), each with its length and whether it reads as zeros."""
    runs: list[tuple[int, bool]] = []
    if not limits.facts.has_extents:
        return [(end - at, False)]
    while at < end:
        start, stop = limits.round_out(at, end - at)
        query = Command(Operation.STATUS, start, stop - start)
        yield [query]
        while not query.answered:
            yield []  # something else has ended
        before = at
        allocation = merge_contexts(query.found.get("base:allocation", []), None)
        for length, flags in clip(allocation, at - start, end - at):
            runs.append((length, bool(flags & ZERO)))
            at += length
        if at == before:
            raise ExtentsBroken("answer ends before the bytes that were asked for", at)
    return runs


def split(runs: Iterable[tuple[int, bool]], offset: int, block_bytes: int) -> Iterator[Block]:
    """Blocks from `offset` on, cut from runs (length, reads as zeros) that are joined or cut as need be."""
    length, zero = 0, True
    for left, is_zero_run in runs:
        while left:
            taken = min(left, block_bytes - length)
            length, zero, left = length + taken, zero and is_zero_run, left - taken
            if length == block_bytes:
                yield offset, length, zero
                offset, length, zero = offset + length, 0, True
    if length:
        yield offset, length, zero
