"""A contest: who runs when, what counts, and what is made of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mover.bench.contest import Contender, Contest, hold


def scripted(name: str, values: list[float], calls: list[str]) -> Contender:
    """A contender that notes each call and measures the next of `values`."""
    remaining = iter(values)

    def run() -> float:
        calls.append(name)
        return next(remaining)

    return Contender(name, f"run {name}", run)


@pytest.fixture
def contest() -> Callable[..., Contest]:
    def make(first: list[float], second: list[float], *, once: bool = False) -> Contest:
        calls: list[str] = []
        return Contest("case", "MB/s", [scripted("a", first, calls), scripted("b", second, calls)], once)

    return make


def test_contenders_run_in_turns_so_that_noise_meets_all_of_them() -> None:
    calls: list[str] = []
    contenders = [scripted("a", [1, 1, 1], calls), scripted("b", [1, 1, 1], calls)]
    hold("get", Contest("", "s", contenders), runs=2)
    assert calls == ["a", "b", "a", "b", "a", "b"]


def test_the_cold_first_run_is_kept_apart_from_the_runs_and_the_median(contest: Callable[..., Contest]) -> None:
    first, _ = hold("get", contest([9, 1, 2, 6], [1, 1, 1, 1]), runs=3)
    assert first.cold == 9
    assert first.runs == [1, 2, 6]
    assert first.median == 2


def test_the_median_of_an_even_number_of_runs_lies_between_the_middle_two(contest: Callable[..., Contest]) -> None:
    first, _ = hold("get", contest([0, 1, 2, 4, 9], [1, 1, 1, 1, 1]), runs=4)
    assert first.median == 3


def test_a_ratio_is_a_median_divided_by_the_other_contenders(contest: Callable[..., Contest]) -> None:
    first, second = hold("get", contest([0, 300], [0, 200]), runs=1)
    assert first.ratios == {"b": 1.5}
    assert second.ratios == {"a": pytest.approx(2 / 3)}


def test_there_is_no_ratio_to_a_median_of_zero(contest: Callable[..., Contest]) -> None:
    first, second = hold("holes", contest([5, 5], [0, 0]), runs=1)
    assert first.ratios == {}
    assert second.ratios == {"a": 0}


def test_a_contest_that_is_held_once_has_one_run_and_no_cold_one(contest: Callable[..., Contest]) -> None:
    first, _ = hold("holes", contest([7], [3], once=True), runs=5)
    assert (first.cold, first.runs, first.median) == (None, [7], 7)
