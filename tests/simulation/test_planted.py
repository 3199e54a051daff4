"""The simulation finds what it is there to find: each of these bugs, planted in the product's rules, is caught."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mover.serve.doubts import Doubts
from tests.simulation.front import FrontEnd, InFlight
from tests.simulation.programs import draw
from tests.simulation.server import Link
from tests.simulation.truth import Violation
from workers.image.ledger import Ledger
from workers.image.ledger_state import LedgerState
from workers.image.overlap import RangeLocks, _Job
from workers.image.plan import Command, Operation
from workers.image.schedule import Schedule, _Record
from workers.image.succession import Succession
from workers.lane.books import Books, Push
from workers.lane.ring import Producer
from workers.lane.slots import Owner, Slots

# Every one is found within a fifth of this.
SCHEDULES = 4000

Plant = Callable[[pytest.MonkeyPatch], None]


def no_fence(patch: pytest.MonkeyPatch) -> None:
    """The successor starts while the server still applies its predecessor's commands."""
    patch.setattr(Link, "drained", True)


def doubts_dropped(patch: pytest.MonkeyPatch) -> None:
    """A fence that failed is taken for one that succeeded."""
    patch.setattr(Doubts, "after_death", lambda doubts, fenced, begun, now_s, settle_s: doubts)


def doubts_ignored(patch: pytest.MonkeyPatch) -> None:
    """The successor does not hold back writes over what its predecessor may still write."""
    patch.setattr(Schedule, "doubt", lambda schedule, offset, length, owner=0: None)


def unfenced_sent_again(patch: pytest.MonkeyPatch) -> None:
    """Writes of a connection that could not be fenced are sent again at once."""
    plain = Succession[object].disconnected

    def disconnected(
        succession: Succession[object], server: tuple[int, int], ready: bool, commands: list[Command], fenced: bool
    ) -> list[Command]:
        return plain(succession, server, ready, commands, True)

    patch.setattr(Succession, "disconnected", disconnected)


def again_passes_all_doubts(patch: pytest.MonkeyPatch) -> None:
    """A write that is submitted again does not wait for what others may still write, either."""
    patch.setattr(_Job, "owns", lambda job, doubt: True)


def published_before_the_ledger(patch: pytest.MonkeyPatch) -> None:
    """A write is recorded only when the next one begins: its completion is out before."""
    late: list[Callable[[], None]] = []
    begin = _Record.begin

    def begin_late(record: _Record, offset: int, length: int) -> None:
        while late:
            late.pop()()
        begin(record, offset, length)

    def written(record: _Record, offset: int, length: int) -> None:
        record._ledger.failed(record._tag)
        late.append(lambda: record._ledger.written(record._tag, record._transfer, offset, length))
        record.begun = False

    patch.setattr(_Record, "begin", begin_late)
    patch.setattr(_Record, "written", written)


def unlocked_before_published(patch: pytest.MonkeyPatch) -> None:
    """A job begins before the completion of the one it waited for is published."""
    patch.setattr(Schedule, "next_ready", lambda schedule: schedule.ready.popleft())


def no_locks(patch: pytest.MonkeyPatch) -> None:
    """Jobs that overlap are in flight together."""
    plain = RangeLocks[int].enter

    def enter(locks: RangeLocks[int], token: int, offset: int, length: int, writes: bool) -> bool:
        plain(locks, token, offset, length, writes)
        return True

    patch.setattr(RangeLocks, "enter", enter)
    patch.setattr(RangeLocks, "leave", lambda locks, token: [])


def locks_of_bytes(patch: pytest.MonkeyPatch) -> None:
    """Jobs that share a block, but no byte, are in flight together."""
    patch.setattr(RangeLocks, "_blocks", lambda locks, offset, length: (offset, offset + length))


def server_not_told_apart(patch: pytest.MonkeyPatch) -> None:
    """A successor of the server is taken for the server."""
    patch.setattr(Ledger, "server", lambda ledger, identity: False)


def unknown_server_trusted(patch: pytest.MonkeyPatch) -> None:
    """A connection is lost where servers look alike, and its successor is taken for the same one."""
    patch.setattr(Ledger, "server_lost", lambda ledger: None)


def flush_covers_too_much(patch: pytest.MonkeyPatch) -> None:
    """A flush is believed to cover what was written while it ran."""
    plain = LedgerState._flush_done

    def flush_done(state: LedgerState, *event: int) -> None:
        for dues in state.dues.values():
            dues.unflushed.clear()
        plain(state, *event)

    patch.setattr(LedgerState, "_flush_done", flush_done)


def flush_not_sent_again(patch: pytest.MonkeyPatch) -> None:
    """A flush that was in flight on a lost connection is taken for done."""
    plain = Schedule[object].lost

    def lost(schedule: Schedule[object], commands: list[Command]) -> None:
        flushes = [command for command in commands if command.operation is Operation.FLUSH]
        plain(schedule, [command for command in commands if command not in flushes])
        for command in flushes:
            schedule.ended(command, 0)

    patch.setattr(Schedule, "lost", lost)


def flush_joined_late(patch: pytest.MonkeyPatch) -> None:
    """A flush that comes while another one is in flight is answered with that one."""

    def start(schedule: Schedule[object]) -> None:
        if schedule._flushing:
            schedule._flushing += schedule._flushes
            schedule._flushes = []
        else:
            plain(schedule)

    plain = Schedule[object]._start_flush
    patch.setattr(Schedule, "_start_flush", start)


def lost_not_told(patch: pytest.MonkeyPatch) -> None:
    """A flush is answered OK though the transfer's writes are lost."""
    patch.setattr(Ledger, "lost", lambda ledger, transfer: [])


def lost_told_for_ever(patch: pytest.MonkeyPatch) -> None:
    """A transfer that was told of its loss is told again with each flush."""
    patch.setattr(Ledger, "told", lambda ledger, transfer: None)


def told_of_more_than_it_was(patch: pytest.MonkeyPatch) -> None:
    """What is lost while a client is told of an earlier loss is struck off with it."""
    patch.setattr(Ledger, "losses", 0)


def completions_not_drained(patch: pytest.MonkeyPatch) -> None:
    """Completions that a dead worker had published are thrown away: what was confirmed is submitted again."""

    def detach(front: FrontEnd) -> None:
        front.open, front.rings, front.rung = False, None, None

    patch.setattr(FrontEnd, "detach", detach)


def abandoned_submitted_again(patch: pytest.MonkeyPatch) -> None:
    """What nobody waits for any more is written after what was sent since."""

    def reopen(books: Books[InFlight], push: Push) -> None:
        books._unsent = books.entries()
        books.push_unsent(push)

    patch.setattr(Books, "reopen", reopen)


def quarantine_for_ever(patch: pytest.MonkeyPatch) -> None:
    """Slots of jobs that were abandoned do not come back with the next worker."""
    patch.setattr(Slots, "worker_gone", lambda slots, gone: None)


def slot_given_back_at_once(patch: pytest.MonkeyPatch) -> None:
    """A slot is given to the next request while the worker still reads from it."""

    complete = Slots.complete

    def abandon(slots: Slots, slot: int) -> None:
        complete(slots, slot)
        slots.release(slot)

    def complete_again(slots: Slots, slot: int) -> None:
        if slots.owner(slot) is Owner.WORKER:
            complete(slots, slot)

    patch.setattr(Slots, "abandon", abandon)
    patch.setattr(Slots, "complete", complete_again)


def no_bound_on_jobs(patch: pytest.MonkeyPatch) -> None:
    """More jobs are with the worker than its ring of completions has cells."""
    plain = Books.__init__
    patch.setattr(Books, "__init__", lambda books, slots, most: plain(books, slots, 1000))


def head_before_cell(patch: pytest.MonkeyPatch) -> None:
    """A ring's head is published before its cell is whole."""

    def push(producer: Producer, *fields: int) -> bool:
        head = producer._head
        if head - producer._words[producer._tail_word] >= producer._count:
            return False
        producer._words[producer._head_word] = head + 1
        producer._head = head + 1
        producer._pack(producer._cells, head % producer._count * 64, *fields, head)
        return True

    patch.setattr(Producer, "push", push)


PLANTS: list[Plant] = [
    no_fence,
    doubts_dropped,
    doubts_ignored,
    unfenced_sent_again,
    again_passes_all_doubts,
    published_before_the_ledger,
    unlocked_before_published,
    no_locks,
    locks_of_bytes,
    server_not_told_apart,
    unknown_server_trusted,
    flush_covers_too_much,
    flush_not_sent_again,
    flush_joined_late,
    lost_not_told,
    lost_told_for_ever,
    told_of_more_than_it_was,
    completions_not_drained,
    abandoned_submitted_again,
    quarantine_for_ever,
    slot_given_back_at_once,
    no_bound_on_jobs,
    head_before_cell,
]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: str(plant.__name__))
def test_a_planted_bug_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the simulation's silence would mean nothing."""
    plant(monkeypatch)
    for seed in range(SCHEDULES):
        world, order = draw(seed)
        try:
            world.run(order.randrange)
        except Violation as found:
            print(f"seed {seed}: {str(found).splitlines()[0]}")
            return
    pytest.fail(f"not found in {SCHEDULES} schedules: {plant.__doc__}")
