"""The ledger: what it says after every event, and after a death at every store."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rules.ledger_model import (
    TRANSFERS,
    Pair,
    Step,
    is_begun,
    members,
    published,
    says,
    scribbled,
    should_say,
    steps,
)
from workers.image import ledger as module
from workers.image.ledger import Ledger, LedgerBroken, LedgerFull, LedgerMisused, begun, completed
from workers.image.ledger_state import Kind

HALF_CELLS = 40
taken = steps(image_bytes=8, transfers=3)
few = steps(image_bytes=64, transfers=2)


@pytest.fixture(scope="module")
def small() -> Iterator[None]:
    """A ledger so small that every test compacts it; 28 ranges are the most that an image of 8 bytes can have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "HALF_CELLS", HALF_CELLS)
        patch.setattr(module, "LEDGER_BYTES", module.HEADER_BYTES + 2 * HALF_CELLS * module.CELL.size)
        patch.setattr(module, "OPEN_MOST", 3)
        patch.setattr(module, "TRANSFERS_MOST", 2)
        patch.setattr(module, "RANGES_MOST", 28)
        yield


@pytest.fixture(scope="module")
def tight(small: None) -> Iterator[None]:
    """And with room for 8 ranges only, which is one for each set and one more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "RANGES_MOST", 8)
        yield


def fresh() -> memoryview:
    return memoryview(bytearray(module.LEDGER_BYTES))


@pytest.mark.usefixtures("small")
@settings(max_examples=300)
@given(early=taken, room=st.integers(0, 8), late=taken)
def test_a_death_at_any_store_leaves_what_was_recorded_before(early: list[Step], room: int, late: list[Step]) -> None:
    """No confirmed byte is forgotten, no flushed one is called lost, no doubt is dropped: exactly the model's bytes."""
    deaths: list[bytes] = []
    memory = bytearray(module.LEDGER_BYTES)
    pair = Pair(memory, lambda: deaths.append(bytes(memory)))
    for step in early:
        pair.take(step)
    pair.leave_room(room)
    for step in late:
        before = should_say(deepcopy(pair.model))
        deaths.clear()
        pair.take(step)
        assert pair.agree()
        assert is_begun(memory) == pair.model.open
        assert says(memory) == should_say(deepcopy(pair.model))
        assert all(says(scribbled(death)) == before for death in deaths if step[0] != "reopen")


@pytest.mark.usefixtures("small")
@settings(max_examples=200)
@given(early=taken, room=st.integers(0, 8), late=taken)
def test_a_successor_that_dies_while_it_opens_leaves_the_same_to_the_next(
    early: list[Step], room: int, late: list[Step]
) -> None:
    """Opening stores events too: what the dead worker had begun stays in doubt, its flush stays failed."""
    pair = Pair(bytearray(module.LEDGER_BYTES))
    for step in early:
        pair.take(step)
    pair.leave_room(room)
    for step in late:
        pair.take(step)
    deaths: list[bytes] = []
    memory = scribbled(pair.memory)
    Ledger(memoryview(memory), lambda: deaths.append(bytes(memory)))
    expected = should_say(pair.model)
    assert deaths
    assert all(says(scribbled(death)) == expected for death in deaths)
    assert says(memory) == expected


@pytest.mark.usefixtures("tight")
@given(early=few, late=few)
def test_a_ledger_full_of_ranges_names_more_bytes_never_fewer(early: list[Step], late: list[Step]) -> None:
    """Small gaps are filled when there is no room; what was written, begun or lost is in it all the same."""
    pair = Pair(bytearray(module.LEDGER_BYTES))
    for step in [*early, *late]:
        pair.take(step)
    pair.ledger._compact()
    assert published(pair.memory)[1] <= 1 + 3 + 8 + 1
    assert members(pair.ledger.doubts()) >= pair.model.doubts()
    for transfer in TRANSFERS:
        assert pair.ledger.unflushed_of(transfer) == pair.model.unflushed_of(transfer)
        assert members(pair.ledger.lost(transfer)) >= pair.model.gone[transfer]
    pair.take(("server_lost", ()))
    assert all(members(pair.ledger.lost(one)) >= pair.model.gone[one] for one in TRANSFERS)


@pytest.mark.usefixtures("tight")
def test_the_smallest_gaps_are_filled_first() -> None:
    """Nine ranges, room for eight: the one gap of a single byte goes, the wide ones stay."""
    ledger = Ledger(fresh())
    for offset in (0, 10, 20, 23, 30, 40, 50, 60, 70):
        ledger.written(0, 1, offset, 2)
    ledger._compact()
    ledger.server_lost()
    assert ledger.lost(1) == [(0, 2), (10, 2), (20, 5), (30, 2), (40, 2), (50, 2), (60, 2), (70, 2)]


def test_the_fullest_summary_leaves_room_in_its_half() -> None:
    """Or a compaction would lead to the next one, or not fit at all."""
    assert 3 * module.TRANSFERS_MOST + 1 <= module.RANGES_MOST
    assert 1 + module.OPEN_MOST + module.RANGES_MOST + 1 < 0.75 * module.HALF_CELLS
    assert module.HEADER_BYTES % 8 == module.CELL.size % 8 == 0


def test_scattered_writes_of_many_transfers_fit() -> None:
    """As many transfers as there may be, 20,000 ranges that never touch, in a ledger of the real size."""
    ledger = Ledger(fresh())
    for number in range(20_000):
        ledger.written(0, number % module.TRANSFERS_MOST, number * 8192, 4096)
    ledger.server_lost()
    for number in range(0, 20_000, 999):
        spans = ledger.lost(number % module.TRANSFERS_MOST)
        assert any(offset <= number * 8192 < offset + length for offset, length in spans)


def test_a_flush_covers_what_was_confirmed_before_it_started() -> None:
    """What is confirmed while it runs stays unflushed, and is lost when the server goes."""
    ledger = Ledger(fresh())
    ledger.written(0, 1, 0, 10)
    ledger.flush_started()
    assert ledger.unflushed_of(1)
    ledger.written(0, 1, 20, 10)
    ledger.flush_done()
    assert ledger.unflushed()
    ledger.server_lost()
    assert ledger.lost(1) == [(20, 10)]


@pytest.mark.usefixtures("small")
def test_a_flush_that_runs_through_a_compaction_is_still_done_at_its_end() -> None:
    """The summary says that it runs and what it covers, or a successor would call flushed bytes unflushed."""
    pair = Pair(bytearray(module.LEDGER_BYTES))
    for step in (("written", (0, 1, 0, 2)), ("flush_started", ())):
        pair.take(step)
    pair.leave_room(0)
    pair.take(("written", (0, 1, 4, 2)))
    pair.take(("flush_done", ()))
    assert published(pair.memory)[0] == 1
    assert says(pair.memory) == should_say(pair.model)


def test_a_flush_that_ran_when_its_worker_died_has_failed() -> None:
    """Its writes are unflushed, its late answer means nothing, and the next flush may start."""
    memory = fresh()
    ledger = Ledger(memory)
    ledger.written(0, 1, 0, 10)
    ledger.flush_started()
    with pytest.raises(LedgerMisused):
        ledger.flush_started()
    ledger = Ledger(memory)
    ledger.flush_done()
    assert ledger.unflushed()
    ledger.flush_started()
    ledger.flush_done()
    assert not ledger.unflushed()


def test_transfers_that_are_flushed_or_told_make_room_for_others() -> None:
    """Only what is still owed an answer counts; one transfer too many is refused and not recorded."""
    ledger = Ledger(fresh())
    for transfer in range(module.TRANSFERS_MOST):
        ledger.written(0, transfer, 0, 1)
    with pytest.raises(LedgerFull):
        ledger.written(0, module.TRANSFERS_MOST, 0, 1)
    assert not ledger.unflushed_of(module.TRANSFERS_MOST)
    ledger.flush_started()
    ledger.flush_done()
    for transfer in range(module.TRANSFERS_MOST):
        ledger.written(0, module.TRANSFERS_MOST + transfer, 0, 1)
    ledger.server_lost()
    ledger.told(module.TRANSFERS_MOST)
    ledger.written(0, 0, 0, 1)


def test_a_lost_range_is_told_once() -> None:
    """The flush fails once, and the next one is honest without it."""
    ledger = Ledger(fresh())
    ledger.written(0, 1, 0, 10)
    ledger.server_lost()
    assert ledger.lost(1) == [(0, 10)]
    ledger.told(1)
    assert ledger.lost(1) == []


def test_sending_a_lost_range_again_makes_it_unflushed() -> None:
    """Only the part that was sent again, and only for the transfer that sent it."""
    ledger = Ledger(fresh())
    ledger.written(0, 1, 0, 10)
    ledger.written(0, 2, 0, 10)
    ledger.server_lost()
    ledger.written(0, 1, 2, 4)
    assert ledger.lost(1) == [(0, 2), (6, 4)]
    assert ledger.lost(2) == [(0, 10)]
    assert ledger.unflushed_of(1)
    assert not ledger.unflushed_of(2)


def test_the_same_server_loses_nothing() -> None:
    """A worker's death, or a lost connection, to a process that still runs: it has the writes."""
    ledger = Ledger(fresh())
    assert not ledger.server((100, 5))
    ledger.written(0, 1, 0, 10)
    assert not ledger.server((100, 5))
    assert ledger.lost(1) == []


@pytest.mark.parametrize("identity", [(100, 6), (101, 5), (0, 0)])
def test_another_server_or_an_unknown_one_loses_what_was_unflushed(identity: tuple[int, int]) -> None:
    """Another pid, the same pid started later, or a connection over TCP."""
    memory = fresh()
    ledger = Ledger(memory)
    ledger.server((100, 5))
    ledger.written(0, 1, 0, 10)
    assert ledger.server(identity)
    assert Ledger(memory).lost(1) == [(0, 10)]


def test_another_server_is_no_matter_when_all_is_flushed() -> None:
    """There is nothing it could have taken along."""
    ledger = Ledger(fresh())
    ledger.server((0, 0))
    ledger.written(0, 1, 0, 10)
    ledger.flush_started()
    ledger.flush_done()
    assert not ledger.server((0, 0))
    assert ledger.lost(1) == []


def test_doubts_of_a_lost_connection_end_only_when_they_are_cleared() -> None:
    """Commands begun on the new connection keep theirs, even with the same tags."""
    ledger = Ledger(fresh())
    ledger.begin(1, 0, 10)
    ledger.abandoned(1)
    ledger.begin(1, 20, 10)
    assert ledger.doubts() == [(0, 10), (20, 10)]
    ledger.clear_doubts()
    assert ledger.doubts() == [(20, 10)]
    ledger.failed(1)
    assert ledger.doubts() == []


def test_the_supervisor_reads_and_never_writes() -> None:
    """It needs no more than a read-only view of a dead worker's memory."""
    memory = fresh()
    ledger = Ledger(memory)
    ledger.begin(1, 0, 10)
    ledger.count_completed()
    image = memoryview(bytes(memory))
    assert begun(image) == [(0, 10, 1)]
    assert completed(image) == 1


def test_completed_jobs_are_counted_over_all_workers() -> None:
    """A successor goes on where its predecessor died."""
    memory = fresh()
    Ledger(memory).count_completed()
    Ledger(memory).count_completed()
    assert completed(memory) == 2


def test_too_many_commands_begun_are_refused() -> None:
    """Every tag in doubt has its place; a command without one must not be sent."""
    ledger = Ledger(fresh())
    for tag in range(module.OPEN_MOST):
        ledger.begin(tag, 0, 1)
    with pytest.raises(LedgerFull) as caught:
        ledger.begin(module.OPEN_MOST, 0, 1)
    assert caught.value.limit == module.OPEN_MOST


@pytest.mark.parametrize(("offset", "length"), [(0, 0), (-1, 4), (2**63 - 4, 4), (2**64, 1)])
def test_what_is_no_range_is_refused_and_not_recorded(offset: int, length: int) -> None:
    """Or the successor would call the ledger broken."""
    memory = fresh()
    ledger = Ledger(memory)
    image = bytes(memory)
    with pytest.raises(LedgerMisused):
        ledger.begin(1, offset, length)
    with pytest.raises(LedgerMisused):
        ledger.written(1, 1, offset, length)
    assert bytes(memory) == image


def cell(kind: int, offset: int, length: int) -> bytes:
    return module.CELL.pack(kind, 1, 1, offset, length)


@pytest.mark.parametrize(
    "first_cell",
    [
        cell(0, 0, 1),
        cell(17, 0, 1),
        cell(Kind.WRITTEN, 0, 0),
        cell(Kind.IS_LOST, 2**63, 1),
        cell(Kind.BEGUN, 1, 2**64 - 1),
    ],
)
def test_a_cell_that_is_no_event_is_an_error(first_cell: bytes) -> None:
    """Never skipped: what it said is unknown."""
    memory = fresh()
    Ledger(memory).written(0, 1, 0, 10)
    memory[module.HEADER_BYTES : module.HEADER_BYTES + len(first_cell)] = first_cell
    with pytest.raises(LedgerBroken):
        Ledger(memory)
    with pytest.raises(LedgerBroken):
        begun(memory)


@pytest.mark.parametrize(("word", "value"), [(0, 1), (0, 0), (1, 2 << 32), (1, module.HALF_CELLS + 1)])
def test_a_header_that_is_none_is_an_error(word: int, value: int) -> None:
    """Another format, a third half, more cells than a half has."""
    memory = fresh()
    Ledger(memory).written(0, 1, 0, 10)
    struct.pack_into("=Q", memory, 8 * word, value)
    with pytest.raises(LedgerBroken):
        Ledger(memory)


def test_memory_of_another_size_is_an_error() -> None:
    """A supervisor of another version made it."""
    with pytest.raises(LedgerBroken) as caught:
        Ledger(memoryview(bytearray(module.LEDGER_BYTES - 1)))
    assert caught.value.limit == module.LEDGER_BYTES
