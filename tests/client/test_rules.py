"""The client's rules without I/O, against models that are as simple as can be."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.client import BrokenError, Extent, RefusedError, UntrustedError, zeros
from mover.client.blkhash import BlockHashes, Hasher
from mover.client.errors import shown
from mover.client.extents import ExtentsWrong, parse
from mover.client.patience import Patience
from mover.client.plan import MOST_RUNS, Run, data_runs, known, samples, task_bytes, tasks
from mover.client.progress import Bandwidth
from mover.client.ranges import Ranges

SPACE = 64

pieces = st.lists(st.tuples(st.integers(0, SPACE - 1), st.integers(1, 16)), max_size=12)


def bits(ranges: object) -> set[int]:
    """The bytes of ranges, one by one."""
    return {at for offset, length in ranges for at in range(offset, offset + length)}  # type: ignore[attr-defined]


@given(pieces, pieces)
def test_ranges_are_a_set_of_bytes(added: list[tuple[int, int]], removed: list[tuple[int, int]]) -> None:
    """Adding and removing, in any order, does what it does to a set; and they neither overlap nor touch."""
    ranges, model = Ranges(), set[int]()
    for index in range(max(len(added), len(removed))):
        for one in added[index : index + 1]:
            ranges.add(*one)
            model |= bits([one])
        for one in removed[index : index + 1]:
            ranges.remove(*one)
            model -= bits([one])
    assert bits(ranges) == model
    assert ranges.bytes == len(model)
    ends = [(offset, offset + length) for offset, length in ranges]
    assert all(one[1] < other[0] for one, other in pairwise(ends))
    parts = list(ranges.parts(3, SPACE))
    assert bits((at, length) for at, length, there in parts if there) == model & set(range(3, SPACE + 3))
    assert [at for at, _, _ in parts] == [3, *(at + length for at, length, _ in parts[:-1])]


@st.composite
def images(draw: st.DrawFn) -> list[Extent]:
    """Extents without gaps."""
    found, at = [], 0
    for length, zero in draw(st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=30)):
        found.append(Extent(at, length, zero))
        at += length
    return found


@given(images(), pieces, st.sampled_from([1, 8]), st.integers(1, 6), st.booleans())
def test_tasks_are_all_of_the_runs_in_order(
    extents: list[Extent], have: list[tuple[int, int]], align: int, units: int, zeros_too: bool
) -> None:
    """Nothing is left out or done twice, and no task shares a block with another one."""
    runs = list(known(data_runs(extents, zeros_too), Ranges(have)))
    planned = list(tasks(runs, units * 8, align))
    wanted = {(at, run.zero, run.have) for run in runs for at in range(run.offset, run.end)}
    done = [(at, run.zero, run.have) for task in planned for run in task.runs for at in range(run.offset, run.end)]
    assert done == sorted(done)
    assert set(done) == wanted
    assert len(done) == len(wanted)
    blocks = [{at // align for run in task.runs for at in range(run.offset, run.end)} for task in planned]
    assert all(not one & other for one, other in pairwise(blocks))


def test_tasks_are_neither_endless_nor_tiny() -> None:
    """By bytes, and by number of runs."""
    many = list(tasks((Run(at * 10, 1) for at in range(MOST_RUNS * 3)), 1 << 20))
    assert max(len(task.runs) for task in many) <= MOST_RUNS
    assert task_bytes(1 << 40, 4) == 32 << 20
    assert task_bytes(1, 4, 4 << 20) == 4 << 20
    assert task_bytes(1 << 40, 4, 5 << 20) % (5 << 20) == 0


@given(pieces, st.integers(1, 8), st.integers(1, 5))
def test_samples_are_of_what_one_has(have: list[tuple[int, int]], count: int, length: int) -> None:
    """And some, if one has something."""
    ranges = Ranges(have)
    picked = samples(ranges, count, length)
    assert bool(picked) == bool(have)
    assert len(picked) <= count
    assert bits(picked) <= bits(ranges)


@given(images(), st.sampled_from([1, 7, 16]), st.integers(1, 9))
def test_the_checksum_is_the_hash_over_the_blocks_hashes(extents: list[Extent], block: int, step: int) -> None:
    """Whatever pieces the data is fed in, and in whatever order its tasks come."""
    size = extents[-1].end if extents else 0
    data = bytearray(size)
    for extent in extents:
        if not extent.zero:
            data[extent.start : extent.end] = bytes(range(1, 256))[: extent.length]
    hashes = BlockHashes(size, "sha256", block)
    for task in reversed(list(tasks(data_runs(extents), 4 * block, block))):
        hasher = Hasher(hashes)
        for run in task.runs:
            for at in range(run.offset, run.end, step):
                hasher.feed(at, memoryview(data)[at : min(at + step, run.end)])
        hasher.finish()
    digests = b"".join(hashlib.sha256(data[at : at + block]).digest() for at in range(0, size, block))
    assert hashes.hexdigest() == hashlib.sha256(digests).hexdigest()


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 20)), max_size=8), st.integers(0, 9), st.integers(1, 9))
def test_zero_runs(parts: list[tuple[bool, int]], offset: int, grain: int) -> None:
    """They cover the view, alternate, and what is called zeros is."""
    view = memoryview(b"".join((b"\0" if zero else b"x") * length for zero, length in parts))
    found = list(zeros.runs(view, offset, grain))
    assert [start for start, _, _ in found] == [0, *(start + length for start, length, _ in found[:-1])][: len(found)]
    assert sum(length for _, length, _ in found) == len(view)
    assert all(not any(view[start : start + length]) for start, length, zero in found if zero)
    assert all(one[2] != other[2] for one, other in pairwise(found))


LISTING = b'[{"start":0,"length":5,"zero":true,"hole":true},{"start":5,"length":5,"zero":false,"hole":false}]'
LINES = b'{"start":0,"length":5,"zero":true}\n{"start":5,"length":5,"zero":false}\n'


@given(st.sampled_from([LISTING, LINES, LISTING.replace(b",{", b", {")]), st.integers(1, 40))
def test_listings_arrive_in_any_pieces(text: bytes, step: int) -> None:
    """Arrays and lines."""
    arrived = [text[at : at + step] for at in range(0, len(text), step)]
    found = [(extent.start, extent.length, extent.zero) for extent in parse(arrived)]
    assert found == [(0, 5, True), (5, 5, False)]


@pytest.mark.parametrize(
    "text",
    [
        b'[{"start":0,"length":5},{"start":6,"length":5}]',
        b'[{"start":1,"length":5}]',
        b'[{"start":0,"length":0}]',
        b'[{"start":0,"length":5},{"start":4,"length":5}]',
        b'[{"start":0,"length":5}',
        b'[{"start":0,"length":5},',
        b'{"start":0,"length":5}\n{"sta',
        b"[1]",
        b"hello",
        b'[{"length":5}]',
        b"[" + b" " * 9000,
    ],
)
def test_wrong_listings_are_errors(text: bytes) -> None:
    """A gap, an overlap, a listing that breaks off: nothing is guessed."""
    with pytest.raises(ExtentsWrong):
        list(parse([text]))


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Pass."""
        self.slept.append(seconds)
        self.now += seconds

    def __call__(self) -> float:
        return self.now


def broken() -> BrokenError:
    """A connection that broke."""
    return BrokenError("http://h/images/x", "read", 0, 1, "broken", "wait")


def refused(status: int, after: float | None = None) -> RefusedError:
    """An answer."""
    return RefusedError("http://h/images/x", "read", 0, 1, status, "no", after)


def test_patience_ends_with_its_deadline_and_begins_anew_with_progress() -> None:
    """Waits grow to their longest; progress makes them short again."""
    clock = Clock()
    patience = Patience(30, clock.sleep, clock)

    def fail_for_ever() -> None:
        while True:
            patience.failed(broken())

    with pytest.raises(BrokenError):
        fail_for_ever()
    assert 20 < clock.now <= 30
    assert clock.slept[0] <= 0.1
    assert max(clock.slept) <= 5
    patience.progressed()
    patience.failed(broken())
    assert clock.slept[-1] <= 0.1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 416, 501])
def test_final_answers_are_not_tried_again(status: int) -> None:
    """They would be the same."""
    clock = Clock()
    with pytest.raises(RefusedError):
        Patience(30, clock.sleep, clock).failed(refused(status))
    with pytest.raises(UntrustedError):
        Patience(30, clock.sleep, clock).failed(UntrustedError("u", "read", 0, 0, "who", "?"))
    assert clock.slept == []


def test_a_server_that_says_when_is_believed() -> None:
    """Retry-After; and one that answers 500 five times means it."""
    clock = Clock()
    patience = Patience(30, clock.sleep, clock)
    patience.failed(refused(503, after=7))
    assert clock.slept == [7]
    patience.progressed()
    for _ in range(4):
        patience.failed(refused(500))
    with pytest.raises(RefusedError):
        patience.failed(refused(500))


def test_bandwidth() -> None:
    """Whoever takes waits until what was taken before has had its time."""
    clock = Clock()
    bandwidth = Bandwidth(100, clock.sleep, clock)
    for _ in range(10):
        bandwidth.take(50)
    assert clock.now == pytest.approx(4.5)
    clock.now += 100
    bandwidth.take(50)
    assert clock.now == pytest.approx(104.5)


def test_ids_are_not_shown_whole() -> None:
    """A ticket's is as good as a password; a name is shown."""
    ticket = "e0a9eb6c-2d27-4f0c-8c5d-3d2d7ecd9f6a"
    assert shown(f"https://host:54322/images/{ticket}") == "https://host:54322/images/e0a9eb6c…"
    assert shown("http://host/images/disk") == "http://host/images/disk"
