"""Servers whose extents are odd: of any length, nowhere aligned, a few at a time. All are told, and no byte is lost."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.harness.fixtures import Images, StartMover
from tests.harness.patterns import difference

pytestmark = pytest.mark.nbd

KIB = 1024
SIZE = 5 * KIB * KIB + 7
FLAGS = {"": (False, False), "zero": (True, False), "hole": (False, True), "hole,zero": (True, True)}
Run = tuple[int, int, str]


def odd_runs(seed: int) -> list[Run]:
    """Offset, length and type of runs over the whole image; neighbours may be alike."""
    luck, runs, at = random.Random(seed), list[Run](), 0
    while at < SIZE:
        length = min(luck.choice((1, 3, 511, 513, 4097, 65_535, 65_537, 300_001)), SIZE - at)
        runs.append((at, length, luck.choice(list(FLAGS))))
        at += length
    return runs


def content(runs: list[Run], seed: int) -> bytes:
    """The image: zeros only where the type says so. A hole alone promises nothing."""
    luck = random.Random(seed)
    return b"".join(bytes(length) if "zero" in kind else luck.randbytes(length) for _, length, kind in runs)


def told(runs: list[Run]) -> list[dict[str, object]]:
    """What clients are told, byte by byte: neighbours that are alike are one extent."""
    found: list[dict[str, object]] = []
    for start, length, kind in runs:
        zero, hole = FLAGS[kind]
        last = found[-1] if found else None
        if last is not None and (last["zero"], last["hole"]) == (zero, hole):
            last["length"] = start + length - int(str(last["start"]))
        else:
            found.append({"start": start, "length": length, "zero": zero, "hole": hole})
    return found


@pytest.mark.parametrize("a_reply", ["all", "one", "two, and more than was asked"])
def test_every_odd_run_is_told_and_every_byte_is_read(a_reply: str, images: Images, start_mover: StartMover) -> None:
    """The list is that of the server, whatever a single reply covers; GETs have every byte that is not zero."""
    runs = odd_runs(len(a_reply))
    expected = content(runs, 5)
    data, table = images.room / "data", images.room / "table"
    data.write_bytes(expected)
    table.write_text("".join(f"{start} {length} {kind}\n" for start, length, kind in runs))
    server = images.nbdkit(
        "odd", "eval", f"get_size=echo {SIZE}", "can_extents=exit 0",
        f"pread=tail -c +$(($4 + 1)) {data} | head -c $3", f"extents={_extents(a_reply, table)}",
    )  # fmt: skip
    mover = start_mover({"odd": server})
    assert mover.ask("GET", "/images/odd/extents").json() == told(runs)
    assert difference(mover.ask("GET", "/images/odd").body, expected) is None
    for start, length, _ in random.Random(1).sample(runs, 20):
        part = mover.ask("GET", f"/images/odd/extents?start={start}&length={length}").json()
        assert sum(extent["length"] for extent in part) == length
        found = mover.ask("GET", "/images/odd", Range=f"bytes={start}-{start + length - 1}")
        assert found.body == expected[start : start + length]
    mover.stop_clean()


def _extents(a_reply: str, table: Path) -> str:
    """The shell's line that answers `extents HANDLE COUNT OFFSET FLAGS`."""
    lines = {"all": "1e9", "one": "1", "two, and more than was asked": "2"}[a_reply]
    return f"awk -v at=$4 -v most={lines} '$1 + $2 > at && n++ < most' {table}"
