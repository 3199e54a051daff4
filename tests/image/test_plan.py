"""Plans against a block device that is spelled out: the right bytes, whole blocks, nothing beyond the image."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.image.device import Device, Extent, limits_of
from workers.image import plan
from workers.image.extents import ExtentBuilder
from workers.image.plan import Command, CommandFailed, Done, Limits, Operation, Plan
from workers.lane.extents_format import DIRTY, HOLE, RECORD, ZERO, ExtentsBroken, unpack

SIZE_MOST = 100


@pytest.fixture(autouse=True, scope="module")
def _small_steps() -> Iterator[None]:
    """Steps that an image of a hundred bytes has several of."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "ZEROS", memoryview(bytes(16)))
        patch.setattr(plan, "ZERO_STEP_BYTES", 32)
        patch.setattr(plan, "STATUS_STEP_BYTES", 24)
        yield


@st.composite
def cases(draw: st.DrawFn) -> tuple[Limits, int, int]:
    """An export and a range of it."""
    block = draw(st.sampled_from([1, 2, 4, 8]))
    size = draw(st.integers(1, SIZE_MOST))
    most = block * draw(st.integers(1, 6))
    offset = draw(st.integers(0, size - 1))
    length = draw(st.integers(1, size - offset))
    return limits_of(size, block, most, can_zero=draw(st.booleans())), offset, length


class Recorded(plan.Record):
    """What the ledger was told; a range is begun before it changes, and only one at a time."""

    def __init__(self) -> None:
        self.begun: tuple[int, int] | None = None
        self.confirmed: list[tuple[int, int]] = []

    def begin(self, offset: int, length: int) -> None:
        assert self.begun is None
        self.begun = offset, length

    def written(self, offset: int, length: int) -> None:
        assert self.begun == (offset, length)
        self.begun = None
        self.confirmed.append((offset, length))

    def covers(self, limits: Limits, command: Command) -> bool:
        if self.begun is None:
            return False
        start, end = limits.round_out(*self.begun)
        return start <= command.offset and command.offset + command.length <= end


def is_zero(view: memoryview) -> bool:
    return not any(view)


def run(steps: Plan, device: Device, chance: random.Random, record: Recorded | None = None) -> Done:
    """Carry out a plan, each batch in an order of chance."""
    while True:
        try:
            batch = next(steps)
        except StopIteration as done:
            assert isinstance(done.value, Done)
            return done.value
        for command in chance.sample(batch, len(batch)):
            if command.operation in (Operation.WRITE, Operation.ZERO):
                assert record is not None
                assert record.covers(device.limits, command)
            device.execute(command)


def image(size: int) -> bytes:
    return bytes(1 + at % 255 for at in range(size))


@given(case=cases(), chance=st.randoms(use_true_random=False))
def test_a_read_fills_the_buffer_with_the_images_bytes(case: tuple[Limits, int, int], chance: random.Random) -> None:
    limits, offset, length = case
    device, buffer = Device(limits, image(limits.size)), bytearray(length)
    assert run(plan.read(limits, offset, memoryview(buffer)), device, chance) == Done(length)
    assert buffer == image(limits.size)[offset : offset + length]


@given(case=cases(), zeros=st.booleans(), chance=st.randoms(use_true_random=False))
def test_a_write_changes_its_bytes_and_no_other(
    case: tuple[Limits, int, int], zeros: bool, chance: random.Random
) -> None:
    limits, offset, length = case
    device, record = Device(limits, image(limits.size)), Recorded()
    data = bytes(length) if zeros else bytes(length - 1) + b"\xff"
    steps = plan.write(limits, record, offset, memoryview(data), False, is_zero)
    assert run(steps, device, chance, record) == Done(length)
    assert device.data == image(limits.size)[:offset] + data + image(limits.size)[offset + length :]
    assert sum(length for _, length in record.confirmed) == length
    assert record.begun is None


@given(case=cases(), may_hole=st.booleans(), chance=st.randoms(use_true_random=False))
def test_a_zero_zeroes_its_bytes_and_no_other_and_tells_the_ledger_all_of_them(
    case: tuple[Limits, int, int], may_hole: bool, chance: random.Random
) -> None:
    limits, offset, length = case
    device, record = Device(limits, image(limits.size)), Recorded()
    assert run(plan.zero(limits, record, offset, length, may_hole), device, chance, record) == Done(length)
    assert device.data == image(limits.size)[:offset] + bytes(length) + image(limits.size)[offset + length :]
    told = [byte for start, count in record.confirmed for byte in range(start, start + count)]
    assert told == list(range(offset, offset + length))


@pytest.mark.parametrize("may_hole", [False, True])
def test_only_a_ticket_that_says_so_lets_zeroing_make_holes(may_hole: bool) -> None:
    (command,) = next(plan.zero(limits_of(64), Recorded(), 0, 10, may_hole))
    assert (command.operation, command.may_hole) == (Operation.ZERO, may_hole)


def test_an_aligned_write_goes_straight_from_the_slot() -> None:
    slot = memoryview(bytearray(b"x" * 16))
    (command,) = next(plan.write(limits_of(64, 8), Recorded(), 8, slot, False, is_zero))
    assert command.buffer is not None
    command.buffer[0] = 7
    assert slot[0] == 7


def test_the_edges_of_a_write_are_read_first_and_its_middle_is_not() -> None:
    """As the drawing above workers/image/plan.py has it."""
    slot = memoryview(bytearray(b"x" * 7000))
    steps = plan.write(limits_of(1 << 20, 4096), Recorded(), 2000, slot, False, is_zero)
    assert [(command.operation.name, command.offset, command.length) for command in next(steps)] == [
        ("READ", 0, 4096),
        ("READ", 8192, 4096),
    ]
    assert sorted((command.offset, command.operation.name, command.length) for command in next(steps)) == [
        (0, "WRITE", 4096),
        (4096, "WRITE", 4096),
        (8192, "WRITE", 4096),
    ]


@pytest.mark.parametrize("fails_at", [0, 1])
def test_an_error_of_the_server_ends_a_write_unconfirmed(fails_at: int) -> None:
    record = Recorded()
    steps = plan.write(limits_of(64, 8), record, 3, memoryview(b"x" * 20), False, is_zero)
    for _ in range(fails_at + 1):
        next(steps)
    with pytest.raises(CommandFailed):
        steps.throw(CommandFailed(5))
    assert record.confirmed == []
    assert record.begun == (3, 20)


# -- extents -----------------------------------------------------------------------------------------------------


class Server(Device):
    """Answers block status from `flags`, one byte for one byte; each context as far as chance has it."""

    def __init__(self, limits: Limits, flags: dict[str, list[int]], chance: random.Random) -> None:
        super().__init__(limits, bytes(limits.size))
        self.flags = flags
        self.chance = chance

    def execute(self, command: Command) -> None:
        assert command.operation is Operation.STATUS
        self.check(command)
        assert command.length <= plan.STATUS_STEP_BYTES + 2 * self.limits.facts.block_bytes
        command.found = {context: self.answer(command, flags) for context, flags in self.flags.items()}

    def answer(self, command: Command, flags: list[int]) -> list[Extent]:
        """One block at least, in pieces that need not be merged, perhaps beyond what was asked."""
        left = self.limits.size - command.offset
        length = self.chance.randint(min(left, self.limits.facts.block_bytes), left)
        found: list[Extent] = []
        at = command.offset
        while at < command.offset + length:
            run = self.chance.randint(1, command.offset + length - at)
            same = next((more for more in range(run) if flags[at + more] != flags[at]), run)
            found.append((same, flags[at]))
            at += same
        return found


@given(
    case=cases(),
    runs=st.lists(st.tuples(st.integers(1, 30), st.sampled_from([0, HOLE, ZERO, HOLE | ZERO, HOLE | 64])), min_size=1),
    dirty=st.none() | st.lists(st.tuples(st.integers(1, 30), st.integers(0, 1)), min_size=1),
    records=st.integers(1, 8),
    chance=st.randoms(use_true_random=False),
)
def test_extents_say_what_the_server_says_of_every_byte_as_far_as_the_slot_has_room(
    case: tuple[Limits, int, int],
    runs: list[Extent],
    dirty: list[Extent] | None,
    records: int,
    chance: random.Random,
) -> None:
    limits, offset, length = case
    flags = {"base:allocation": spread(runs, limits.size)}
    if dirty is not None:
        flags["monday"] = spread(dirty, limits.size)
    slot = memoryview(bytearray(records * RECORD.size + 5))
    builder = ExtentBuilder(slot)
    steps = plan.extents(limits, offset, length, "monday" if dirty else None, builder)
    done = run(steps, Server(limits, flags, chance), chance)
    found = list(unpack(slot[: done.filled]))
    assert 0 < done.covered <= length
    assert done.covered == length or len(found) == records
    assert spread(found, done.covered) == [
        flags["base:allocation"][at] & (HOLE | ZERO) | (DIRTY if dirty and flags["monday"][at] else 0)
        for at in range(offset, offset + done.covered)
    ]
    assert all(one[1] != other[1] for one, other in pairwise(found)), "neighbours not merged"


def spread(runs: list[Extent], size: int) -> list[int]:
    """The flags of every byte; the last run goes on to the end."""
    flags = [flag for length, flag in runs for _ in range(length)]
    return (flags + [flags[-1]] * size)[:size]


def test_a_server_without_extents_has_data() -> None:
    slot = memoryview(bytearray(64))
    steps = plan.extents(limits_of(64, has_extents=False), 3, 40, None, ExtentBuilder(slot))
    with pytest.raises(StopIteration) as done:
        next(steps)
    assert done.value.value == Done(40, RECORD.size)
    assert list(unpack(slot[: RECORD.size])) == [(40, 0)]


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"base:allocation": []},
        {"base:allocation": [(64, 0)]},
        {"base:allocation": [(64, 0)], "monday": []},
        {"base:allocation": [(64, 0)], "tuesday": [(64, 1)]},
        {"monday": [(64, 1)]},
        {"base:allocation": [(0, 0), (64, 0)], "monday": [(64, 1)]},
        {"base:allocation": [(64, 0)], "monday": [(0, 1)]},
    ],
    ids=repr,
)
def test_a_context_that_says_nothing_is_an_error_and_not_a_guess(found: dict[str, list[Extent]]) -> None:
    """Least of all `not dirty`: a backup would leave the bytes out."""
    for has_extents in (True, False):
        limits = limits_of(64, bitmap="monday", has_extents=has_extents)
        steps = plan.extents(limits, 0, 64, "monday", ExtentBuilder(memoryview(bytearray(64))))
        (query,) = next(steps)
        query.found = found
        with pytest.raises(ExtentsBroken):
            next(steps)


def test_an_answer_that_ends_before_the_bytes_that_were_asked_for_is_not_asked_for_ever() -> None:
    """
    block   [0 ............ 16)
    asked        [9 ...............
    answer  [0 . 4)
    """
    steps = plan.extents(limits_of(64, 16), 9, 20, None, ExtentBuilder(memoryview(bytearray(64))))
    (query,) = next(steps)
    assert query.offset == 0
    query.found = {"base:allocation": [(4, 0)]}
    with pytest.raises(ExtentsBroken):
        next(steps)
