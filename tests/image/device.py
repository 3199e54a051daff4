"""A block device spelled out byte by byte, which refuses what no NBD server need accept."""

from __future__ import annotations

from workers.image.ledger import LEDGER_BYTES, Ledger
from workers.image.plan import Command, Limits, Operation
from workers.image.schedule import Schedule
from workers.lane.protocol import ImageFacts

Extent = tuple[int, int]


def limits_of(
    size: int, block: int = 1, most: int = 1 << 20, *, can_zero: bool = True, has_extents: bool = True, bitmap: str = ""
) -> Limits:
    """What an export of `size` bytes allows."""
    facts = ImageFacts(
        size_bytes=size,
        read_only=False,
        can_flush=True,
        can_zero=can_zero,
        has_extents=has_extents,
        multi_conn=False,
        block_bytes=block,
        bitmaps=[bitmap] if bitmap else [],
    )
    return Limits(facts, most)


def new_schedule() -> Schedule[str]:
    """A schedule with an empty ledger; its lanes are names."""
    return Schedule(Ledger(memoryview(bytearray(LEDGER_BYTES))), lambda view: not any(view))


class Device:
    """Carries out commands on `data`. AssertionError for one that is not whole blocks, too long, or outside."""

    def __init__(self, limits: Limits, data: bytes) -> None:
        self.limits = limits
        self.data = bytearray(data)
        self.flushes = 0

    def execute(self, command: Command) -> None:
        """Carry out one command, as a server would before it answers."""
        if command.operation is Operation.FLUSH:
            self.flushes += 1
            return
        self.check(command)
        span = slice(command.offset, command.offset + command.length)
        if command.operation is Operation.READ:
            assert command.buffer is not None
            command.buffer[:] = self.data[span]
        elif command.operation is Operation.WRITE:
            assert command.buffer is not None
            self.data[span] = command.buffer
        elif command.operation is Operation.ZERO:
            self.data[span] = bytes(command.length)

    def check(self, command: Command) -> None:
        """Only whole blocks, but for the last one of an image that does not end with a block."""
        facts, end = self.limits.facts, command.offset + command.length
        assert command.length > 0
        assert command.offset % facts.block_bytes == 0
        assert end % facts.block_bytes == 0 or end == facts.size_bytes
        assert end <= facts.size_bytes
        if command.operation in (Operation.READ, Operation.WRITE):
            assert command.buffer is not None
            assert len(command.buffer) == command.length <= self.limits.most_bytes
        assert facts.can_zero or command.operation is not Operation.ZERO
