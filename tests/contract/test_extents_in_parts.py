"""Extents a line each, and of a part of the image: Mover's own additions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contract.house import DATA_BYTES, DIRTY_BYTES, FRAGMENTED_BYTES, KIB, MIB, House
from tests.contract.wire import Row, Wire, request
from tests.harness.http import Address

pytestmark = pytest.mark.nbd

LINES = "application/x-ndjson"


def data(start: int, length: int) -> list[dict[str, Any]]:
    """One extent of data."""
    return [{"start": start, "length": length, "zero": False, "hole": False}]


def part(says: str, query: str, body: list[dict[str, Any]]) -> Row:
    """The extents of a part of the image `data`, which is all data."""
    return Row(says, request("GET", f"/images/data/extents?{query}"), 200, {}, body)


def refused(says: str, query: str, status: int, error: str) -> Row:
    """A part that cannot be had."""
    return Row(says, request("GET", f"/images/data/extents?{query}"), status, error=error)


ROWS = [
    part("from a start", "start=4096", data(4096, DATA_BYTES - 4096)),
    part("a length", "length=4096", data(0, 4096)),
    part("start and length", "start=1&length=7", data(1, 7)),
    part("a length beyond the end is cut", "start=4096&length=99999999999999", data(4096, DATA_BYTES - 4096)),
    part("nothing", "start=5&length=0", []),
    part("nothing at the end", f"start={DATA_BYTES}", []),
    refused("a start after the end", f"start={DATA_BYTES + 1}", 416, f"image size {DATA_BYTES}"),
    refused("a start that is no number", "start=x", 400, "start='x'"),
    refused("a negative start", "start=-1", 400, "start='-1'"),
    refused("digits of another alphabet", "start=%D9%A3", 400, "is not a number"),
    refused("a length of twenty digits", "length=99999999999999999999", 400, "is not a number"),
    Row("no lines of an empty image", request("GET", "/images/empty/extents", Accept=LINES), 200,
        {"Content-Type": LINES}, b""),
    Row("lines refused by a weight of 0", request("GET", "/images/data/extents", Accept=f"{LINES};q=0"), 200,
        {"Content-Type": "application/json"}, data(0, DATA_BYTES)),
    Row("lines among others", request("GET", "/images/data/extents", Accept=f"text/html, {LINES};q=0.5"), 200,
        {"Content-Type": LINES}),
    Row("HEAD of lines", request("HEAD", "/images/data/extents", Accept=LINES), 200, {"Content-Type": LINES}, b""),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_part_row(row: Row, address: Address) -> None:
    """Parts are cut at the image's end, and what is no part is refused."""
    row.check(address)


@pytest.mark.parametrize("target", ["/images/shreds/extents", "/images/dirty/extents?context=dirty"])
def test_lines_are_the_arrays_objects(target: str, address: Address) -> None:
    """One object a line, the last line ended too, however many pieces they came in."""
    with Wire(address) as wire:
        lines = wire.ask(request("GET", target, Accept=LINES)).body
        array = wire.ask(request("GET", target)).json()
        assert wire.goes_on()
    assert lines.endswith(b"}\n")
    assert [json.loads(line) for line in lines.splitlines()] == array


def test_parts_are_the_whole(address: Address) -> None:
    """Parts of uneven lengths, joined, say of every byte what the whole says."""
    step = 5 * MIB + 1234
    with Wire(address) as wire:
        whole = wire.ask(request("GET", "/images/fragmented/extents")).json()
        parts = [
            one
            for start in range(0, FRAGMENTED_BYTES, step)
            for one in wire.ask(request("GET", f"/images/fragmented/extents?start={start}&length={step}")).json()
        ]
    assert joined(parts) == whole


def joined(extents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Equal neighbours made one."""
    found: list[dict[str, Any]] = []
    for one in extents:
        if found and all(found[-1][key] == one[key] for key in ("zero", "hole")):
            assert found[-1]["start"] + found[-1]["length"] == one["start"]
            found[-1]["length"] += one["length"]
        else:
            found.append(dict(one))
    return found


def test_a_part_of_the_dirty_extents(house: House) -> None:
    """`start` and `length` go with a context."""
    answer = house.mover.ask("GET", f"/images/dirty/extents?context=dirty&start={4 * 64 * KIB}&length={128 * KIB}")
    found = [(one["start"], one["length"], one["dirty"]) for one in answer.json()]
    assert found == [(256 * KIB, 64 * KIB, True), (320 * KIB, 64 * KIB, False)]
    assert DIRTY_BYTES > 384 * KIB
