"""Rendering extents: against a brute-force merge, by both dialects, however they come in windows."""

from __future__ import annotations

import json
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.front.dialect import CLOUDSTACK, IMAGEIO, Dialect
from mover.front.extents import FIRST_BYTES, GROWTH, LEAST_BYTES, RUNS_WANTED, Renderer, next_length, texts
from workers.lane.extents_format import ALL_FLAGS, DIRTY, HOLE, ZERO

Window = list[tuple[int, int]]

windows = st.lists(st.lists(st.tuples(st.integers(1, 9), st.integers(0, ALL_FLAGS)), max_size=6), max_size=6)


def rendered(start: int, given_windows: list[Window], *what: Any) -> list[dict[str, Any]]:
    """All objects of the JSON."""
    renderer = Renderer(start, texts(*what))
    rows = [row for window in given_windows for row in renderer.render(window)]
    return [json.loads(row) for row in [*rows, *renderer.finish()]]


def keys(flags: int, dialect: Dialect, dirty: bool, all_dirty: bool) -> dict[str, bool]:
    """What an extent is, in the words of a dialect."""
    zero = {"zero": bool(flags & ZERO)}
    if dirty:
        return {"dirty": all_dirty or bool(flags & DIRTY), **zero}
    return {**zero, "hole": bool(flags & HOLE)} if dialect is IMAGEIO else zero


@given(st.integers(0, 99), windows, st.sampled_from([IMAGEIO, CLOUDSTACK]), st.booleans(), st.booleans())
def test_extents_are_a_brute_force_merge(
    start: int, given_windows: list[Window], dialect: Dialect, dirty: bool, all_dirty: bool
) -> None:
    """Byte for byte what was found, neighbours that read the same as one, whatever the windows were."""
    facts = [
        keys(flags, dialect, dirty, all_dirty) for window in given_windows for length, flags in window
        for _ in range(length)
    ]  # fmt: skip
    expected, at = [], start
    for fact, group in groupby(facts):
        length = len(list(group))
        expected.append({"start": at, "length": length, **fact})
        at += length
    assert rendered(start, given_windows, dialect, dirty, all_dirty) == expected


def test_the_end_of_what_was_rendered_is_told() -> None:
    """For the log, when a list breaks off."""
    renderer = Renderer(10, texts(IMAGEIO, False))
    renderer.render([(5, 0), (7, ZERO)])
    assert renderer.end == 22


@given(st.integers(1, 1 << 40), st.integers(1, 100_000), st.integers(LEAST_BYTES, 1 << 40))
def test_windows_follow_the_density(covered: int, runs: int, length: int) -> None:
    """The next window is never tiny, never grows by leaps, and holds about the runs wanted where nothing changes."""
    following = next_length(covered, runs, length)
    assert LEAST_BYTES <= following <= max(LEAST_BYTES, GROWTH * length)
    assert following <= max(LEAST_BYTES, covered * RUNS_WANTED // runs)


@pytest.mark.parametrize(("runs", "factor"), [(1, GROWTH), (RUNS_WANTED, 1), (RUNS_WANTED * 4, 0.25)])
def test_a_window_of_so_many_runs(runs: int, factor: float) -> None:
    """Sparse: four times as long; as dense as wanted: the same; four times as dense: a quarter."""
    assert next_length(FIRST_BYTES, runs, FIRST_BYTES) == FIRST_BYTES * factor
