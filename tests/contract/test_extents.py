"""Extents: allocation as the server reports it, dirty extents by a persistent bitmap, and their refusals."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import groupby
from typing import Any

import pytest

from tests.contract.house import (
    DATA_BYTES,
    DIRTY_BYTES,
    DIRTY_CLUSTERS,
    FRAGMENTED_BYTES,
    HUGE_BYTES,
    KIB,
    ZEROED_CLUSTER,
    House,
    run,
)
from tests.contract.wire import Row, Wire, request
from tests.harness.http import Address

pytestmark = pytest.mark.nbd

CLUSTER = 64 * KIB
HOLE, ZERO = 1, 2
ALL_DATA = [{"start": 0, "length": DATA_BYTES, "zero": False, "hole": False}]
IMAGE = {"Accept-Ranges": "bytes", "Access-Control-Allow-Methods": "GET, HEAD, PUT, PATCH, POST, OPTIONS"}


def dirty_extents() -> list[dict[str, Any]]:
    """What is dirty of the image `dirty`, by how it was made: its first half is data but for one cluster."""
    facts = []
    for number in range(DIRTY_BYTES // CLUSTER):
        zero = number == ZEROED_CLUSTER or number * CLUSTER >= DIRTY_BYTES // 2
        facts.append((number, {"dirty": number in DIRTY_CLUSTERS, "zero": zero}))
    return merged((number * CLUSTER, CLUSTER, fact) for number, fact in facts)


def merged(extents: Iterable[tuple[int, int, dict[str, bool]]]) -> list[dict[str, Any]]:
    """Extents (start, length, what they are) with equal neighbours made one."""
    found = []
    for fact, group in groupby(extents, key=lambda extent: extent[2]):
        members = list(group)
        found.append({"start": members[0][0], "length": sum(member[1] for member in members), **fact})
    return found


def by_nbdinfo(uri: str) -> list[dict[str, Any]]:
    """The allocation of an export as nbdinfo sees it."""
    found = json.loads(run("nbdinfo", "--map", "--json", uri))
    return merged(
        (one["offset"], one["length"], {"zero": bool(one["type"] & ZERO), "hole": bool(one["type"] & HOLE)})
        for one in found
    )


ROWS = [
    Row("all of it is data", request("GET", "/images/data/extents"), 200, IMAGE, ALL_DATA),
    Row("a server without extents", request("GET", "/images/no-extents/extents"), 200, IMAGE, ALL_DATA),
    Row("zero by its name", request("GET", "/images/data/extents?context=zero"), 200, IMAGE, ALL_DATA),
    Row("a slash at the end", request("GET", "/images/data/extents/"), 200, IMAGE, ALL_DATA),
    Row("an empty image", request("GET", "/images/empty/extents"), 200, IMAGE, []),
    Row(
        "one hole, for which the server is asked more than once",
        request("GET", "/images/huge/extents"),
        200,
        IMAGE,
        [{"start": 0, "length": HUGE_BYTES, "zero": True, "hole": True}],
    ),
    Row("a read-only export", request("GET", "/images/read-only/extents"), 200, {}, ALL_DATA),
    Row("dirty extents", request("GET", "/images/dirty/extents?context=dirty"), 200, IMAGE, dirty_extents()),
    Row("HEAD has no body", request("HEAD", "/images/data/extents"), 200, {"Content-Type": "application/json"}, b""),
    Row(
        "dirty and no bitmap in the URL",
        request("GET", "/images/data/extents?context=dirty"),
        404,
        IMAGE,
        error="the image's URL names no bitmap",
    ),
    Row(
        "dirty and a bitmap that the export does not have",
        request("GET", "/images/no-bitmap/extents?context=dirty"),
        404,
        IMAGE,
        error="the export has no bitmap 'other'",
    ),
    Row(
        "a context that nobody knows",
        request("GET", "/images/data/extents?context=base:allocation"),
        400,
        IMAGE,
        error="'base:allocation' is not 'zero' or 'dirty'",
    ),
    Row("an unknown image", request("GET", "/images/nobody/extents"), 404, error="unknown image_id"),
    Row("PUT", request("PUT", "/images/data/extents", b"x"), 405, {"Allow": "GET, HEAD"}),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_extents_row(row: Row, address: Address) -> None:
    """Every row of extents is answered as the contract says."""
    row.check(address)


def test_extents_are_those_of_nbdinfo(house: House, address: Address) -> None:
    """A fragmented image's extents are the server's, from 0 to the size, without gaps, neighbours merged."""
    with Wire(address) as wire:
        found = wire.ask(request("GET", "/images/fragmented/extents")).json()
        assert wire.goes_on()
    assert found == by_nbdinfo(f"nbd+unix:///?socket={house.room}/fragmented.nbd")
    assert len(found) > 300
    ends = [0, *(one["start"] + one["length"] for one in found)]
    assert [one["start"] for one in found] == ends[:-1]
    assert ends[-1] == FRAGMENTED_BYTES


def test_extents_of_an_image_in_shreds(house: House, address: Address) -> None:
    """Tens of thousands of extents, asked for a window at a time, are still the server's, and none is split."""
    with Wire(address) as wire:
        found = wire.ask(request("GET", "/images/shreds/extents")).json()
        assert wire.goes_on()
    assert len(found) > 30_000
    assert found == by_nbdinfo(f"nbd+unix:///?socket={house.room}/shreds.nbd")


def test_zeros_are_those_of_qemu_img(house: House, address: Address) -> None:
    """`qemu-img map` reads the same zeros and data from the file itself."""
    found = json.loads(run("qemu-img", "map", "--output=json", "-U", house.fragmented))
    by_qemu = merged((one["start"], one["length"], {"zero": one["zero"]}) for one in found)
    with Wire(address) as wire:
        ours = wire.ask(request("GET", "/images/fragmented/extents")).json()
    assert merged((one["start"], one["length"], {"zero": one["zero"]}) for one in ours) == by_qemu


def test_a_write_through_mover_is_dirty_and_no_zero_any_more(house: House, address: Address) -> None:
    """Extents are asked of the server each time, never remembered."""
    target = "/images/changing"
    before = house.mover.ask("GET", f"{target}/extents").json()
    assert before == [{"start": 0, "length": 1024 * KIB, "zero": True, "hole": True}]
    with Wire(address) as wire:
        assert (
            wire.ask(request("PUT", f"{target}?flush=n", b"\1" * CLUSTER, Content_Range="bytes 65536-*/*")).status
            == 200
        )
        after = wire.ask(request("GET", f"{target}/extents")).json()
        assert [one["zero"] for one in after] == [True, False, True]
        assert after[1]["start"] == CLUSTER
        zero = json.dumps({"op": "zero", "offset": CLUSTER, "size": CLUSTER}).encode()
        assert wire.ask(request("PATCH", target, zero)).status == 200
        assert all(one["zero"] for one in wire.ask(request("GET", f"{target}/extents")).json())
    run("qemu-io", "-f", "raw", "-c", "discard -q 0 1M", f"nbd+unix:///?socket={house.room}/changing.nbd")
