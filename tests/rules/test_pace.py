"""A client's pace: silence and next to nothing end it, pauses do not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mover.front.pace import Pace


def test_silence_ends_after_the_patience() -> None:
    pace = Pace(60, 1024)
    for _ in range(59):
        pace.waited(1)
    assert pace.left_s > 0
    pace.waited(1)
    assert pace.left_s <= 0


def test_a_byte_now_and_then_ends_little_later() -> None:
    pace, waited = Pace(60, 1024), 0
    while pace.left_s > 0:
        pace.waited(1)
        pace.moved(1)
        waited += 1
    assert 60 <= waited <= 61


@given(st.lists(st.floats(0.1, 59), max_size=50))
def test_who_pauses_and_goes_on_is_never_out_of_credit(pauses: list[float]) -> None:
    """A pause below the patience, and enough bytes after it, however often."""
    pace = Pace(60, 1024)
    for pause in pauses:
        pace.waited(pause)
        assert pace.left_s > 0
        pace.moved(1024 * 60)


def test_what_was_moved_before_is_no_credit_for_later() -> None:
    pace = Pace(60, 1024)
    pace.moved(10**12)
    pace.waited(60)
    assert pace.left_s <= 0
