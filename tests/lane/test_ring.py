"""A ring against a plain queue, over every boundary, and with everything that a broken other side can store."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.lane.protocol import CELL_BYTES, COMPLETION_CELL, JOB_CELL
from workers.lane.ring import (
    COMPLETION_HEAD,
    COMPLETION_TAIL,
    SUBMISSION_HEAD,
    SUBMISSION_TAIL,
    WRITES,
    Consumer,
    Producer,
    RingBroken,
    Rings,
    rings_bytes,
)

JOB = st.tuples(
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**8 - 1),
    st.integers(0, 2**8 - 1),
    st.integers(0, 2**16 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(0, 2**32 - 1),
)
PLAIN = (1, 1, 0, 0, 7, 0, 0, -1, 0)


def rings(cells: int = 4) -> Rings:
    return Rings(memoryview(bytearray(rings_bytes(cells))), cells)


def submissions(of: Rings) -> tuple[Producer, Consumer]:
    return of.front_end()[0], of.worker()[0]


@given(cells=st.integers(1, 5), steps=st.lists(st.one_of(JOB, st.integers(0, 6)), max_size=60))
def test_what_is_pushed_is_popped_in_order_and_whole(cells: int, steps: list[Any]) -> None:
    producer, consumer = submissions(rings(cells))
    model: deque[tuple[int, ...]] = deque()
    for step in steps:
        if isinstance(step, tuple):
            assert producer.push(*step) == (len(model) < cells)
            if len(model) < cells:
                model.append(step)
            continue
        for _, fields in zip(range(step), consumer.pop_all(), strict=False):
            assert fields == model.popleft()
    assert list(consumer.pop_all()) == list(model)


def test_a_cell_is_free_as_soon_as_it_was_popped_not_when_all_were() -> None:
    producer, consumer = submissions(rings(2))
    assert producer.push(*PLAIN)
    assert producer.push(*PLAIN)
    assert not producer.push(*PLAIN)
    next(consumer.pop_all())
    assert producer.push(*PLAIN)


def test_the_two_rings_share_no_cell() -> None:
    both = rings(3)
    jobs, completions = both.front_end()[0], both.worker()[1]
    for number in range(3):
        assert jobs.push(1, 1, 0, 0, number, 0, 0, -1, 0)
        assert completions.push(2, 0, number, 5, 6)
    assert [fields[4] for fields in both.worker()[0].pop_all()] == [0, 1, 2]
    assert [fields[2] for fields in both.front_end()[1].pop_all()] == [0, 1, 2]


def test_every_word_has_a_cache_line_of_its_own_below_the_cells() -> None:
    words = [SUBMISSION_HEAD, SUBMISSION_TAIL, COMPLETION_HEAD, COMPLETION_TAIL, WRITES]
    assert len({word * 8 // 64 for word in words}) == len(words)
    assert rings_bytes(1) == 4096 + 2 * CELL_BYTES
    assert max(JOB_CELL.size, COMPLETION_CELL.size) <= CELL_BYTES


@pytest.mark.parametrize("head", [5, 2**63, 2**64 - 1])
def test_a_head_further_ahead_than_the_ring_is_long_is_refused(head: int) -> None:
    both = rings(4)
    _, consumer = submissions(both)
    both.words[SUBMISSION_HEAD] = head
    with pytest.raises(RingBroken) as broken:
        next(consumer.pop_all())
    assert broken.value.value == head


def test_a_head_that_goes_back_is_refused() -> None:
    both = rings(4)
    producer, consumer = submissions(both)
    producer.push(*PLAIN)
    producer.push(*PLAIN)
    assert len(list(consumer.pop_all())) == 2
    both.words[SUBMISSION_HEAD] = 1
    with pytest.raises(RingBroken):
        next(consumer.pop_all())


def test_a_cell_that_was_not_written_is_refused_and_stays() -> None:
    """A head that became visible before its cell: the sequence number at the cell's end is not the expected one."""
    both = rings(4)
    producer, consumer = submissions(both)
    producer.push(*PLAIN)
    both.words[SUBMISSION_HEAD] = 2
    popping = consumer.pop_all()
    assert next(popping) == PLAIN
    with pytest.raises(RingBroken) as broken:
        next(popping)
    assert (broken.value.value, broken.value.expected) == (0, 1)
    assert both.words[SUBMISSION_TAIL] == 1


def test_a_push_that_never_reached_its_head_is_as_if_it_had_not_been() -> None:
    """Killed between the cell and the head: the next reader sees nothing, and nothing is broken."""
    both = rings(4)
    producer, consumer = submissions(both)
    producer.push(*PLAIN)
    both.words[SUBMISSION_HEAD] = 0
    assert list(consumer.pop_all()) == []
