"""RangeLocks against the rule itself, spelled out byte by byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from workers.image.overlap import RangeLocks, TokenMisused

BLOCK = 4
offsets = st.integers(0, 40)
lengths = st.integers(1, 12)


def blocks(offset: int, length: int) -> set[int]:
    return {byte // BLOCK for byte in range(offset, offset + length)}


class Model(RuleBasedStateMachine):
    """Jobs in order of arrival; one runs when nobody before it that it conflicts with is left."""

    def __init__(self) -> None:
        super().__init__()
        self.locks: RangeLocks[int] = RangeLocks(BLOCK)
        self.next_token = 0
        self.jobs: dict[int, tuple[set[int], bool]] = {}
        self.running: set[int] = set()
        self.doubts: list[set[int]] = []

    def conflicts(self, one: int, other: int) -> bool:
        (blocks_one, writes_one), (blocks_other, writes_other) = self.jobs[one], self.jobs[other]
        return (writes_one or writes_other) and bool(blocks_one & blocks_other)

    def may_run(self, token: int) -> bool:
        touched, writes = self.jobs[token]
        if writes and any(touched & doubt for doubt in self.doubts):
            return False
        return not any(self.conflicts(token, other) for other in self.jobs if other < token)

    def start(self, tokens: list[int]) -> None:
        """What the locks let start is exactly what the model lets start."""
        expected = {token for token in self.jobs if token not in self.running and self.may_run(token)}
        assert set(tokens) == expected
        assert len(tokens) == len(expected)
        self.running |= expected

    @rule(offset=offsets, length=lengths, writes=st.booleans())
    def enter(self, offset: int, length: int, writes: bool) -> None:
        token, self.next_token = self.next_token, self.next_token + 1
        self.jobs[token] = (blocks(offset, length), writes)
        self.start([token] if self.locks.enter(token, offset, length, writes) else [])

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """A running job ends, or a waiting one is cancelled."""
        token = data.draw(st.sampled_from(sorted(self.jobs)))
        del self.jobs[token]
        self.running.discard(token)
        self.start(self.locks.leave(token))

    @rule(offset=offsets, length=lengths)
    def doubt(self, offset: int, length: int) -> None:
        self.doubts.append(blocks(offset, length))
        self.locks.doubt(offset, length)

    @rule()
    def clear_doubts(self) -> None:
        self.doubts.clear()
        self.start(self.locks.clear_doubts())

    @invariant()
    def never_two_with_a_writer_inside(self) -> None:
        running = sorted(self.running)
        assert not any(self.conflicts(one, other) for one in running for other in running if one < other)

    def teardown(self) -> None:
        """Everything that entered starts in the end."""
        self.clear_doubts()
        while self.jobs:
            token = min(self.running)
            del self.jobs[token]
            self.running.remove(token)
            self.start(self.locks.leave(token))


TestRangeLocks = Model.TestCase


def test_reads_run_together() -> None:
    """Overlapping reads do not wait for each other."""
    locks = RangeLocks[str](1)
    assert locks.enter("a", 0, 100, writes=False)
    assert locks.enter("b", 50, 100, writes=False)


def test_a_reader_does_not_overtake_a_waiting_writer() -> None:
    """Or a stream of readers would starve it."""
    locks = RangeLocks[str](1)
    assert locks.enter("reader", 0, 10, writes=False)
    assert not locks.enter("writer", 0, 10, writes=True)
    assert not locks.enter("late reader", 5, 10, writes=False)
    assert locks.leave("reader") == ["writer"]
    assert locks.leave("writer") == ["late reader"]


def test_a_cancelled_waiter_lets_those_behind_it_go() -> None:
    """And it never starts itself."""
    locks = RangeLocks[str](1)
    assert locks.enter("reader", 0, 10, writes=False)
    assert not locks.enter("writer", 0, 10, writes=True)
    assert not locks.enter("late reader", 5, 10, writes=False)
    assert locks.leave("writer") == ["late reader"]
    assert locks.leave("reader") == []


def test_unaligned_neighbours_in_one_block_wait_for_each_other() -> None:
    """Both would read the block, change their part and write it back."""
    locks = RangeLocks[str](4096)
    assert locks.enter("a", 0, 1000, writes=True)
    assert not locks.enter("b", 1000, 1000, writes=True)
    assert locks.enter("c", 4096, 1000, writes=True)


def test_a_write_that_fell_in_doubt_holds_the_writer_behind_it() -> None:
    """The connection of `a` is lost: `b`, which waited for it, waits for the fence now; a reader does not."""
    locks = RangeLocks[str](1)
    assert locks.enter("a", 0, 10, writes=True)
    assert not locks.enter("b", 5, 10, writes=True)
    locks.doubt(0, 10)
    assert locks.leave("a") == []
    assert locks.enter("reader", 0, 5, writes=False)
    assert locks.clear_doubts() == ["b"]


@given(st.booleans())
def test_a_token_enters_once_and_leaves_once(writes: bool) -> None:
    """Anything else is a named error and changes nothing."""
    locks = RangeLocks[str](1)
    with pytest.raises(TokenMisused):
        locks.leave("a")
    assert locks.enter("a", 0, 10, writes)
    with pytest.raises(TokenMisused):
        locks.enter("a", 50, 10, not writes)
    assert locks.leave("a") == []
    with pytest.raises(TokenMisused):
        locks.leave("a")
