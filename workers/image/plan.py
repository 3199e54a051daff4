"""From a job to NBD commands: one generator per kind of job.

A plan yields lists of commands that may be in flight together, and goes on when all of them have ended well
(a checksum's, when any has); an NBD error is thrown into it. What a plan does in the face of blocks, limits and
missing features stands here and nowhere else:

    offset         0        4096       8192      12288      block_bytes = 4096
    job                  [2000 .................. 9000)
    read or zero   [0 ........... whole blocks ......... 12288)
    edges          [0 .. 4096)               [8192 .. 12288)     read, changed in memory, written
    middle                    [4096 .. 8192)                     straight from the slot
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from enum import IntEnum

import msgspec

from workers.image.extents import ExtentBuilder, clip, merge_contexts
from workers.lane.extents_format import ExtentsBroken
from workers.lane.protocol import ImageFacts

# One step of a long zero: a server may take seconds for it, and other jobs wait on the same connection.
ZERO_STEP_BYTES = 128 * 1024 * 1024
# The unit in which zeros are written to a server without WRITE_ZEROES.
ZEROS = memoryview(bytes(1024 * 1024))
# NBD's lengths are 32 bits; a query of 2 GiB at most keeps every server's arithmetic safe.
STATUS_STEP_BYTES = 1 << 31


class Operation(IntEnum):
    """What an NBD command does."""

    READ = 1
    WRITE = 2
    ZERO = 3
    FLUSH = 4
    STATUS = 5
    HASH = 6  # not the export's: threads of the worker hash a buffer (workers/image/checksum.py)
    # Of whole files (workers/image/whole_file.py).
    OPEN = 7
    BEGIN = 8
    COMMIT = 9
    ROLLBACK = 10
    # Of stores (workers/store/export.py).
    ASK = 11


# What changes the image: such a command may still land after its connection is lost.
WRITING = frozenset({Operation.WRITE, Operation.ZERO})


class Command:
    """One NBD command; the same object is sent again when its connection was lost. `found` is a STATUS's answer."""

    __slots__ = (
        "answered",
        "buffer",
        "found",
        "length",
        "may_hole",
        "number",
        "offset",
        "operation",
        "sent_ns",
        "task",
    )

    def __init__(
        self,
        operation: Operation,
        offset: int = 0,
        length: int = 0,
        buffer: memoryview | None = None,
        may_hole: bool = False,
    ) -> None:
        self.operation = operation
        self.offset = offset
        self.length = length
        self.buffer = buffer
        self.may_hole = may_hole
        self.found: dict[str, list[tuple[int, int]]] = {}
        self.number = 0
        self.sent_ns = 0
        self.answered = False
        self.task: object = None


class SessionCommand(Command):
    """A command in its lane's `session`; an answer may be a `value` and be about `covered` bytes."""

    __slots__ = ("covered", "keep", "lane", "session", "value")

    def __init__(
        self,
        operation: Operation,
        lane: object,
        session: int,
        offset: int = 0,
        length: int = 0,
        buffer: memoryview | None = None,
        keep: bool = False,
    ) -> None:
        super().__init__(operation, offset, length, buffer)
        self.keep = keep
        self.lane = lane
        self.session = session
        self.value = 0
        self.covered = length


class CommandFailed(Exception):
    """The server answered a command with an error."""

    def __init__(self, errno: int) -> None:
        super().__init__(f"errno {errno}")
        self.errno = errno


class Limits(msgspec.Struct, frozen=True):
    """What the export allows; sizes in bytes."""

    facts: ImageFacts
    most_bytes: int

    @property
    def size(self) -> int:
        """The image's size."""
        return self.facts.size_bytes

    def round_out(self, offset: int, length: int) -> tuple[int, int]:
        """Start and end of the whole blocks around a range, within the image."""
        block = self.facts.block_bytes
        start = offset - offset % block
        end = offset + length
        return start, min(end + -end % block, max(self.size, end))

    def aligned(self, offset: int, length: int) -> bool:
        """Whether a range is whole blocks already."""
        return self.round_out(offset, length) == (offset, offset + length)


class Done(msgspec.Struct, frozen=True):
    """How a plan ended well: bytes of the image it covered, and, for extents, bytes of the slot it filled."""

    covered: int = 0
    filled: int = 0


Plan = Generator[list[Command], None, Done]
"""Yields batches of commands."""


class Record:
    """What a plan tells the ledger: `begin` before a range is written, `written` when the server confirmed it."""

    def begin(self, offset: int, length: int) -> None:
        """A write of this range is about to be sent."""

    def written(self, offset: int, length: int) -> None:
        """All of the range was confirmed."""


def pieces(operation: Operation, offset: int, buffer: memoryview, most: int) -> list[Command]:
    """Commands of at most `most` bytes for all of `buffer`."""
    return [
        Command(operation, offset + at, len(piece), piece)
        for at in range(0, len(buffer), most)
        for piece in (buffer[at : at + most],)
    ]


def read(limits: Limits, offset: int, buffer: memoryview) -> Plan:
    """Fill `buffer` from the image at `offset`."""
    length = len(buffer)
    if limits.aligned(offset, length):
        commands = pieces(Operation.READ, offset, buffer, limits.most_bytes)
        yield commands
        # Of a source whose end nobody knows, the last one has shortened itself.
        return Done(sum(command.length for command in commands) if limits.facts.unsized else length)
    start, end = limits.round_out(offset, length)
    blocks = memoryview(bytearray(end - start))
    yield pieces(Operation.READ, start, blocks, limits.most_bytes)
    buffer[:] = blocks[offset - start : offset - start + length]
    return Done(length)


def write(
    limits: Limits,
    record: Record,
    offset: int,
    buffer: memoryview,
    may_hole: bool,
    is_zero: Callable[[memoryview], bool],
) -> Plan:
    """Write `buffer` at `offset`; a buffer of zeros is zeroed instead."""
    if is_zero(buffer):
        return (yield from zero(limits, record, offset, len(buffer), may_hole))
    record.begin(offset, len(buffer))
    edges, middle = yield from _edges(limits, offset, buffer)
    yield [
        command for at, view in (*edges, *middle) for command in pieces(Operation.WRITE, at, view, limits.most_bytes)
    ]
    record.written(offset, len(buffer))
    return Done(len(buffer))


Piece = tuple[int, memoryview]


def _edges(
    limits: Limits, offset: int, buffer: memoryview
) -> Generator[list[Command], None, tuple[list[Piece], list[Piece]]]:
    """Read the blocks that the range covers in part, and change them: ([edge blocks], [middle])."""
    length, block = len(buffer), limits.facts.block_bytes
    if limits.aligned(offset, length):
        return [], [(offset, buffer)]
    start, end = limits.round_out(offset, length)
    first_whole = offset + -offset % block
    last_whole = (offset + length) - (offset + length) % block if end > offset + length else offset + length
    if first_whole >= last_whole:  # no whole block inside: one buffer holds all of it
        spans = [(start, end)]
    else:
        spans = [span for span in ((start, first_whole), (last_whole, end)) if span[0] < span[1]]
    edges = [(low, memoryview(bytearray(high - low))) for low, high in spans]
    yield [command for low, view in edges for command in pieces(Operation.READ, low, view, limits.most_bytes)]
    for low, view in edges:
        begin, stop = max(low, offset), min(low + len(view), offset + length)
        view[begin - low : stop - low] = buffer[begin - offset : stop - offset]
    middle = [(first_whole, buffer[first_whole - offset : last_whole - offset])] if first_whole < last_whole else []
    return edges, middle


def zero(limits: Limits, record: Record, offset: int, length: int, may_hole: bool) -> Plan:
    """Make a range of any length read as zeros, a step at a time."""
    at, end = offset, offset + length
    while at < end:
        step = _zero_step(limits, at, end)
        record.begin(at, step)
        if limits.facts.can_zero and limits.aligned(at, step):
            yield [Command(Operation.ZERO, at, step, may_hole=may_hole)]
        else:
            edges, middle = yield from _edges(limits, at, ZEROS[:step])
            yield [
                command
                for low, view in (*edges, *middle)
                for command in pieces(Operation.WRITE, low, view, limits.most_bytes)
            ]
        record.written(at, step)
        at += step
    return Done(length)


def _zero_step(limits: Limits, at: int, end: int) -> int:
    """How much to zero next: up to a block's edge, then whole blocks, then the rest."""
    block = limits.facts.block_bytes
    if not limits.facts.can_zero:
        return min(end - at, len(ZEROS))
    if at % block:
        return min(end, at + -at % block) - at
    whole = min(end, at + ZERO_STEP_BYTES)
    if whole % block and whole != limits.size:
        whole -= whole % block
    return (whole if whole > at else end) - at


def in_session(command: SessionCommand) -> Plan:
    """One command of a whole file or a store: it has neither blocks nor a ledger, and nobody else has its session."""
    yield [command]
    return Done(command.covered, command.value)


def extents(limits: Limits, offset: int, length: int, bitmap: str | None, builder: ExtentBuilder) -> Plan:
    """Build the extents of a range until all is covered or the slot is full. A server without them has data."""
    at, end = offset, offset + length
    if not limits.facts.has_extents and bitmap is None:
        builder.add(length, 0)
        at = end
    while at < end and not builder.full:
        start, stop = limits.round_out(at, min(end - at, STATUS_STEP_BYTES))
        query = Command(Operation.STATUS, start, stop - start)
        yield [query]
        before, at = at, _add(query, at, end, bitmap, builder)
        if at == before and not builder.full:
            raise ExtentsBroken("answer ends before the bytes that were asked for", at)  # and so would the next one
    return Done(builder.finish(), builder.filled)


def _add(query: Command, at: int, end: int, bitmap: str | None, builder: ExtentBuilder) -> int:
    """Add what one reply says of [at, end); how far that led."""
    allocation = query.found.get("base:allocation", [])
    dirty = query.found.get(bitmap, []) if bitmap is not None else None
    depth = query.found.get("qemu:allocation-depth")
    for length, flags in clip(merge_contexts(allocation, dirty, depth), at - query.offset, end - at):
        at += builder.add(length, flags)
        if builder.full:
            break
    return at
