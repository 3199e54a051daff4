"""Results as JSON and as tables."""

from __future__ import annotations

import json

import pytest
from msgspec import structs

from mover.bench import report
from mover.bench.contest import Result

MOVER = Result("get", "mover", [3000.0, 3100.0], 3050.0, "MB/s", {"nbdcopy": 0.953125}, command="curl", cold=2000.0)
NBDCOPY = Result("get", "nbdcopy", [3200.0, 3200.0], 3200.0, "MB/s", {"mover": 1.049}, command="nbdcopy NBD null:")
SMALL = Result("small", "mover", [5000.0], 5000.0, "requests/s", {}, case="1 connection")


def test_json_is_a_list_of_objects_with_the_agreed_keys() -> None:
    objects = json.loads(report.as_json([MOVER, NBDCOPY]))
    assert [each["contender"] for each in objects] == ["mover", "nbdcopy"]
    for each in objects:
        assert {"row", "contender", "runs", "median", "unit", "ratios"} <= each.keys()
    assert objects[0]["runs"] == [3000, 3100]
    assert objects[0]["ratios"] == {"nbdcopy": 0.953125}
    assert objects[0]["cold"] == 2000


def test_json_tells_the_contests_of_one_row_apart_by_their_case() -> None:
    assert json.loads(report.as_json([SMALL]))[0]["case"] == "1 connection"


def test_text_shows_medians_the_cold_run_ratios_and_commands() -> None:
    lines = report.as_text([MOVER, NBDCOPY]).splitlines()
    assert lines[0] == "get: MB/s"
    assert lines[1].split() == ["contender", "median", "least", "most", "cold", "x", "mover", "x", "nbdcopy"]
    assert lines[2].split() == ["mover", "3050", "3000", "3100", "2000", "-", "0.95"]
    assert lines[3].split() == ["nbdcopy", "3200", "3200", "3200", "-", "1.05", "-"]
    assert "  nbdcopy = nbdcopy NBD null:" in lines


def test_text_has_a_table_for_each_contest() -> None:
    eight = structs.replace(SMALL, case="8 connections")
    text = report.as_text([MOVER, NBDCOPY, SMALL, eight])
    assert [block.splitlines()[0] for block in text.split("\n\n")] == [
        "get: MB/s",
        "small: 1 connection, requests/s",
        "small: 8 connections, requests/s",
    ]


def test_columns_are_aligned_the_first_to_the_left_and_the_others_to_the_right() -> None:
    assert report.table([["a", "bb"], ["ccc", "d"]]) == ["  a    bb", "  ccc   d"]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.8345, "0.83"), (9.999, "10.00"), (41.49, "41.5"), (3149.6, "3150")]
)
def test_a_number_is_shown_with_the_digits_that_say_something(value: float, text: str) -> None:
    assert report.number(value) == text
