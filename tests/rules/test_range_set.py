"""RangeSet against a set of single bytes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.image.range_set import RangeSet

BYTES = 48
ranges = st.tuples(st.integers(0, BYTES - 9), st.integers(1, 8))
changes = st.lists(st.tuples(st.booleans(), ranges), max_size=30)


def members(ranges: RangeSet) -> set[int]:
    return {byte for offset, length in ranges for byte in range(offset, offset + length)}


def build(steps: list[tuple[bool, tuple[int, int]]]) -> tuple[RangeSet, set[int]]:
    found, model = RangeSet(), set[int]()
    for adds, (offset, length) in steps:
        if adds:
            found.add(offset, length)
            model |= set(range(offset, offset + length))
        else:
            found.remove(offset, length)
            model -= set(range(offset, offset + length))
    return found, model


@given(changes)
def test_it_holds_the_bytes_that_were_put_in_and_not_taken_out(steps: list[tuple[bool, tuple[int, int]]]) -> None:
    found, model = build(steps)
    assert members(found) == model


@given(changes)
def test_its_ranges_are_sorted_and_neither_overlap_nor_touch(steps: list[tuple[bool, tuple[int, int]]]) -> None:
    found, _ = build(steps)
    listed = list(found)
    assert len(listed) == len(found)
    assert all(length > 0 for _, length in listed)
    assert all(one + length < other for (one, length), (other, _) in pairwise(listed))


@given(changes, st.data())
def test_filling_gaps_adds_just_their_bytes(steps: list[tuple[bool, tuple[int, int]]], data: st.DataObject) -> None:
    found, model = build(steps)
    listed, gaps = list(found), found.gaps()
    chosen = data.draw(st.sets(st.sampled_from(range(len(gaps))))) if gaps else set()
    found.fill(chosen)
    for number in chosen:
        start = sum(listed[number])
        assert listed[number + 1][0] - start == gaps[number]
        model |= set(range(start, start + gaps[number]))
    assert members(found) == model
    assert len(found) == len(listed) - len(chosen)


def test_writing_in_order_leaves_one_range() -> None:
    """A million bytes in order are one range, not a list that grows."""
    found = RangeSet((offset, 1000) for offset in range(0, 1_000_000, 1000))
    assert list(found) == [(0, 1_000_000)]


def test_sets_are_equal_when_their_bytes_are() -> None:
    """Order of arrival leaves no trace."""
    assert RangeSet([(0, 4), (4, 4)]) == RangeSet([(2, 6), (0, 3)])
    assert RangeSet([(0, 4)]) != RangeSet([(0, 5)])
    with pytest.raises(TypeError):
        hash(RangeSet())
