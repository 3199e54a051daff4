"""Extents: two contexts merged, clipped and packed, against a list with one entry a byte."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.image.extents import ExtentBuilder, clip, merge_contexts
from workers.lane.extents_format import DIRTY, HOLE, RECORD, ZERO, Extent, ExtentsBroken, unpack

extents = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3)), min_size=1, max_size=12)


def each_byte(found: list[Extent]) -> list[int]:
    return [flags for length, flags in found for _ in range(length)]


def packed(found: list[Extent], records: int) -> tuple[list[Extent], int]:
    view = memoryview(bytearray(records * RECORD.size + 5))
    builder = ExtentBuilder(view)
    for length, flags in found:
        if not builder.add(length, flags):
            break
    covered = builder.finish()
    return list(unpack(view[: builder.filled])), covered


@given(extents, st.none() | extents)
def test_each_byte_has_the_flags_of_both_contexts_as_far_as_both_speak(
    allocation: list[Extent], bitmap: list[Extent] | None
) -> None:
    flags = each_byte(allocation)
    if bitmap is not None:
        dirty = each_byte(bitmap)
        flags = [one | (DIRTY if other & 1 else 0) for one, other in zip(flags, dirty, strict=False)]
    assert each_byte(list(merge_contexts(allocation, bitmap))) == flags


@given(extents, extents)
def test_with_a_depth_a_hole_is_what_no_image_of_the_chain_has(allocation: list[Extent], depth: list[Extent]) -> None:
    both = zip(each_byte(allocation), each_byte(depth), strict=False)
    flags = [one & ZERO | (0 if other else HOLE) for one, other in both]
    assert each_byte(list(merge_contexts(allocation, None, depth))) == flags


@given(extents, st.none() | extents)
def test_no_neighbours_are_alike_and_none_is_empty(allocation: list[Extent], bitmap: list[Extent] | None) -> None:
    merged = list(merge_contexts(allocation, bitmap))
    assert all(length > 0 for length, _ in merged)
    assert all(one[1] != other[1] for one, other in pairwise(merged))


@given(extents, st.integers(0, 40), st.integers(1, 40))
def test_clip_cuts_out_what_was_asked(found: list[Extent], skip: int, most: int) -> None:
    clipped = list(clip(found, skip, most))
    assert each_byte(clipped) == each_byte(found)[skip : skip + most]
    assert all(length > 0 for length, _ in clipped)


def test_clip_asks_for_no_extent_beyond_the_end() -> None:
    """A long reply is merged as far as it is used, and no further."""
    source = iter([(5, 0), (5, 1), (5, 2)])
    assert list(clip(source, 0, 10)) == [(5, 0), (5, 1)]
    assert list(source) == [(5, 2)]


def test_a_hole_alone_is_not_called_zero() -> None:
    """HOLE without ZERO stays without ZERO: its bytes have to be read."""
    assert list(merge_contexts([(4, HOLE), (4, ZERO), (4, HOLE | ZERO)], None)) == [(4, 1), (4, 2), (4, 3)]


def test_bits_that_nobody_defined_are_dropped() -> None:
    """A server's other allocation bits do not pass for DIRTY, nor a bitmap's other bits for dirty."""
    assert list(merge_contexts([(4, ZERO | DIRTY | 64)], None)) == [(4, ZERO)]
    assert list(merge_contexts([(4, ZERO)], [(4, 2)])) == [(4, ZERO)]


@pytest.mark.parametrize(
    ("allocation", "bitmap"),
    [([], None), ([], [(4, 0)]), ([(4, 0)], []), ([(4, 0), (0, 1)], None), ([(4, 0)], [(2, 1), (0, 0)])],
)
def test_a_reply_that_leaves_a_gap_is_an_error(allocation: list[Extent], bitmap: list[Extent] | None) -> None:
    """An empty context, or an extent of length 0, is never a guess."""
    with pytest.raises(ExtentsBroken, match="gap") as caught:
        list(merge_contexts(allocation, bitmap))
    assert caught.value.value == 0


@given(extents, st.integers(1, 12))
def test_a_slot_holds_a_beginning_of_the_extents_and_says_how_long_it_is(found: list[Extent], records: int) -> None:
    unpacked, covered = packed(found, records)
    assert each_byte(unpacked) == each_byte(found)[:covered]
    assert all(one[1] != other[1] for one, other in pairwise(unpacked))
    assert len(unpacked) == min(records, len(list(merge_contexts(found, None))))


def test_a_full_builder_says_so_and_still_takes_what_its_last_record_can() -> None:
    """Room is needed for a new record, not for a longer one."""
    builder = ExtentBuilder(memoryview(bytearray(RECORD.size)))
    assert builder.add(4, 0) == 4
    assert not builder.full
    assert builder.add(4, ZERO) == 0
    assert builder.full
    assert builder.add(6, 0) == 6
    assert (builder.finish(), builder.filled) == (10, RECORD.size)


def test_a_million_fragments_take_a_million_steps() -> None:
    """Every fragment is looked at once: no list grows inside another's loop."""
    allocation = [(4096, flags) for flags in (0, 3)] * 100_000
    merged = merge_contexts(allocation, [(4096 * 200_000, 1)])
    assert sum(length for length, _ in merged) == 4096 * 200_000


@pytest.mark.parametrize("packed", [b"\0" * RECORD.size, RECORD.pack(4, 8), RECORD.pack(4, 0)[:-1]])
def test_a_front_end_refuses_records_that_are_none(packed: bytes) -> None:
    """A worker is not trusted: no length, unknown flags, half a record."""
    with pytest.raises(ExtentsBroken):
        list(unpack(memoryview(packed)))
