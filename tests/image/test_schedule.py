"""The worker's rules, one at a time: locks, errors, losses, flushes, refusals."""

from __future__ import annotations

import errno

import pytest

from mover.front.errors import job_failed
from tests.image.device import limits_of, new_schedule
from workers.image.plan import Command, Operation
from workers.image.schedule import Schedule
from workers.lane.extents_format import RECORD
from workers.lane.protocol import Completion, Flag, ImageFacts, Job, Kind, Status

SIZE = 64
BLOCK = 4
LIMITS = limits_of(SIZE, BLOCK)
SERVER = (7, 1)


def schedule_of(facts: ImageFacts | None = LIMITS.facts) -> Schedule[str]:
    """A schedule with its ledger; connected, unless there are no facts."""
    schedule = new_schedule()
    schedule.ledger.server(SERVER)
    if facts is not None:
        schedule.connected(type(LIMITS)(facts, SIZE))
    return schedule


def facts_with(**changes: object) -> ImageFacts:
    fields = {name: getattr(LIMITS.facts, name) for name in LIMITS.facts.__struct_fields__}
    return ImageFacts(**(fields | changes))


def buffer(content: bytes = b"") -> memoryview:
    return memoryview(bytearray(content.ljust(SIZE, b"\0")))


def sent(schedule: Schedule[str]) -> list[Command]:
    """All that may be sent now."""
    return list(iter(schedule.next_ready, None))


def published(schedule: Schedule[str]) -> list[tuple[int, Status]]:
    """What has finished, published now."""
    found = [(completion.number, completion.status) for _, _, completion in schedule.finished]
    schedule.finished.clear()
    return found


def write(schedule: Schedule[str], number: int, offset: int, length: int, transfer: int = 1) -> None:
    job = Job(number, Kind.WRITE, offset, length, slot=0, transfer=transfer)
    schedule.submit("lane", job, buffer(bytes([number]) * length))


def flush(schedule: Schedule[str], number: int, transfer: int = 1) -> None:
    schedule.submit("lane", Job(number, Kind.FLUSH, transfer=transfer), None)


# -- one rule at a time ----------------------------------------------------------------------------------------


def test_a_job_that_waited_begins_only_when_the_one_before_it_was_published() -> None:
    """Else the worker's death between the two would have the earlier one submitted again, onto the later."""
    schedule = schedule_of()
    write(schedule, 1, 0, 8)
    write(schedule, 2, 4, 8)
    (first,) = sent(schedule)
    schedule.ended(first, 0)
    assert schedule.next_ready() is None
    assert published(schedule) == [(1, Status.OK)]
    (second,) = sent(schedule)
    assert (second.offset, second.length) == (4, 8)


def test_a_write_is_in_doubt_from_before_it_is_sent_until_it_is_confirmed() -> None:
    schedule = schedule_of()
    write(schedule, 1, 0, 8)
    assert schedule.ledger.doubts() == [(0, 8)]
    (command,) = sent(schedule)
    schedule.ended(command, 0)
    assert schedule.ledger.doubts() == []
    assert schedule.ledger.unflushed_of(1)
    assert published(schedule) == [(1, Status.OK)]


def test_jobs_that_came_before_the_connection_are_planned_with_it_in_their_order() -> None:
    schedule = schedule_of(None)
    write(schedule, 1, 0, 8)
    write(schedule, 2, 0, 8)
    assert sent(schedule) == []
    schedule.connected(LIMITS)
    assert [command.number for command in sent(schedule)] == [1]
    assert schedule.active == 2


def test_writes_over_a_doubt_wait_until_it_has_settled_and_reads_do_not() -> None:
    schedule = schedule_of()
    schedule.doubt(0, 8)
    write(schedule, 1, 4, 8)
    write(schedule, 2, 16, 8)
    schedule.submit("lane", Job(3, Kind.READ, 0, 4, slot=0), buffer())
    assert [command.offset for command in sent(schedule)] == [16, 0]
    schedule.settled()
    assert [command.offset for command in sent(schedule)] == [4]


def test_an_error_of_the_server_is_the_jobs_and_lets_the_next_one_begin() -> None:
    schedule = schedule_of()
    write(schedule, 1, 0, 8)
    write(schedule, 2, 0, 8)
    (first,) = sent(schedule)
    schedule.ended(first, errno.ENOSPC)
    (_, _, completion) = schedule.finished[0]
    assert completion == Completion(1, Status.FAILED, 0, errno.ENOSPC)
    published(schedule)
    assert len(sent(schedule)) == 1
    assert schedule.ledger.doubts() == [(0, 8)]  # the second's
    assert not schedule.ledger.unflushed_of(1)


def test_the_first_error_of_several_commands_wins_and_ends_the_job_when_all_are_back() -> None:
    schedule = schedule_of(None)
    schedule.connected(limits_of(SIZE, BLOCK, 4))
    schedule.submit("lane", Job(1, Kind.READ, 0, 12, slot=0), buffer())
    commands = sent(schedule)
    for command, error in zip(commands, (0, errno.EIO, errno.ENOSPC), strict=True):
        assert published(schedule) == []
        schedule.ended(command, error)
    assert schedule.finished[0][2].value == errno.EIO


def test_what_was_lost_is_sent_again_before_what_was_ready_after_it() -> None:
    schedule = schedule_of()
    for number in range(4):
        write(schedule, number + 1, 8 * number, 8)
    commands = [schedule.next_ready() for _ in range(3)]
    schedule.lost([command for command in reversed(commands) if command is not None])
    assert [command.offset for command in sent(schedule)] == [0, 8, 16, 24]


def test_the_confirmed_part_of_a_write_is_sent_again_when_the_rest_was_lost() -> None:
    """The server that comes back may be another one, which never saw it."""
    schedule = schedule_of(None)
    schedule.connected(limits_of(SIZE, BLOCK, 4))
    write(schedule, 1, 0, 8)
    one, other = sent(schedule)
    schedule.ended(one, 0)
    schedule.lost([other])
    assert [command.offset for command in sent(schedule)] == [0, 4]
    schedule.ended(one, 0)
    schedule.ended(other, 0)
    assert published(schedule) == [(1, Status.OK)]


def test_what_was_lost_of_a_job_that_has_ended_is_not_sent_again() -> None:
    schedule = schedule_of()
    write(schedule, 1, 0, 8)
    commands = sent(schedule)
    schedule.gone()
    published(schedule)
    schedule.lost(commands)
    assert sent(schedule) == []
    schedule.ended(commands[0], 0)
    assert published(schedule) == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errno.ENOTCONN, "the NBD server is gone"),
        (errno.ENOENT, "the file is gone"),
        (errno.ESTALE, "another image, or one of another size"),
    ],
)
def test_a_job_whose_image_is_gone_hears_what_has_gone(error: int, words: str) -> None:
    schedule = schedule_of()
    write(schedule, 1, 0, 8)
    schedule.gone(error)
    ((_, _, completion),) = schedule.finished
    assert words in job_failed(completion, "write", 0, 8).message


def test_a_server_that_is_gone_ends_every_job_and_leaves_its_writes_in_doubt() -> None:
    schedule = schedule_of()
    write(schedule, 1, 0, 8)
    write(schedule, 2, 4, 8)
    flush(schedule, 3)
    flush(schedule, 4)
    sent(schedule)
    schedule.gone()
    assert sorted(published(schedule)) == [(number, Status.GONE) for number in (1, 2, 3, 4)]
    assert (schedule.active, list(schedule.ready)) == (0, [])
    assert schedule.ledger.doubts() == [(0, 12)]
    flush(schedule, 5)
    assert [command.operation for command in sent(schedule)] == [Operation.FLUSH]


# -- flush -----------------------------------------------------------------------------------------------------


def test_flushes_that_come_while_one_runs_share_the_next_one() -> None:
    schedule = schedule_of()
    flush(schedule, 1)
    (first,) = sent(schedule)
    for number in (2, 3, 4):
        flush(schedule, number)
    assert sent(schedule) == []
    schedule.ended(first, 0)
    assert published(schedule) == [(1, Status.OK)]
    (second,) = sent(schedule)
    schedule.ended(second, 0)
    assert published(schedule) == [(2, Status.OK), (3, Status.OK), (4, Status.OK)]
    assert sent(schedule) == []


def test_a_write_that_is_confirmed_while_a_flush_runs_is_not_covered_by_it() -> None:
    schedule = schedule_of()
    flush(schedule, 1)
    (running,) = sent(schedule)
    write(schedule, 2, 0, 8)
    (writing,) = sent(schedule)
    schedule.ended(writing, 0)
    published(schedule)
    schedule.ended(running, 0)
    assert published(schedule) == [(1, Status.OK)]
    assert schedule.ledger.unflushed_of(1)


def test_a_flush_that_fails_fails_for_all_who_wait_for_it_and_nothing_is_flushed() -> None:
    schedule = schedule_of()
    write(schedule, 1, 0, 8)
    schedule.ended(sent(schedule)[0], 0)
    published(schedule)
    flush(schedule, 2)
    schedule.ended(sent(schedule)[0], errno.EIO)
    assert published(schedule) == [(2, Status.FAILED)]
    assert schedule.ledger.unflushed_of(1)


def test_a_flush_that_was_lost_is_sent_again_once() -> None:
    schedule = schedule_of()
    flush(schedule, 1)
    schedule.lost(sent(schedule))
    (again,) = sent(schedule)
    schedule.ended(again, 0)
    assert published(schedule) == [(1, Status.OK)]


def test_a_flush_tells_only_the_transfer_whose_writes_are_lost_until_it_was_told() -> None:
    schedule = schedule_of()
    write(schedule, 1, 0, 8, transfer=1)
    schedule.ended(sent(schedule)[0], 0)
    published(schedule)
    assert schedule.ledger.server((8, 1))
    for expected in (Status.LOST, Status.LOST):
        flush(schedule, 2, transfer=1)
        flush(schedule, 3, transfer=2)
        answers: list[tuple[int, Status]] = []
        while len(answers) < 2:
            for command in sent(schedule):
                schedule.ended(command, 0)
            answers += published(schedule)
        assert answers == [(2, expected), (3, Status.OK)]


# -- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "facts", "refusal"),
    [
        (Job(1, Kind.READ, 0, 0, slot=0), LIMITS.facts, errno.EINVAL),
        (Job(1, Kind.READ, SIZE, 1, slot=0), LIMITS.facts, errno.EINVAL),
        (Job(1, Kind.READ, SIZE - 1, 2, slot=0), LIMITS.facts, errno.EINVAL),
        (Job(1, Kind.ZERO, 2**64 - 1, 2**64 - 1), LIMITS.facts, errno.EINVAL),
        (Job(1, Kind.EXTENTS, 0, SIZE + 1, slot=0), LIMITS.facts, errno.EINVAL),
        (Job(1, Kind.WRITE, 0, 1, slot=0), facts_with(read_only=True), errno.EROFS),
        (Job(1, Kind.ZERO, 0, 1), facts_with(read_only=True), errno.EROFS),
        (Job(1, Kind.FLUSH), facts_with(can_flush=False), errno.EOPNOTSUPP),
        (Job(1, Kind.EXTENTS, 0, 1, slot=0, context=1), LIMITS.facts, errno.ENOENT),
        (Job(1, Kind.EXTENTS, 0, 1, slot=0, context=3), facts_with(bitmaps=["a", "b"]), errno.ENOENT),
    ],
    ids=repr,
)
def test_what_the_image_cannot_have_is_refused_before_the_server_hears_of_it(
    job: Job, facts: ImageFacts, refusal: int
) -> None:
    schedule = schedule_of(facts)
    schedule.submit("lane", job, buffer())
    assert schedule.finished[0][2] == Completion(1, Status.REFUSED, 0, refusal)
    assert (schedule.active, list(schedule.ready)) == (0, [])


def test_a_servers_extents_that_are_none_fail_the_job_and_nothing_else() -> None:
    schedule = schedule_of()
    schedule.submit("lane", Job(1, Kind.EXTENTS, 0, SIZE, slot=0), buffer())
    (query,) = sent(schedule)
    query.found = {}
    schedule.ended(query, 0)
    assert schedule.finished[0][2] == Completion(1, Status.FAILED, 0, errno.EPROTO)


def test_extents_tell_how_much_of_the_image_and_of_the_slot_they_are() -> None:
    schedule = schedule_of()
    schedule.submit("lane", Job(1, Kind.EXTENTS, 0, SIZE, slot=0), buffer())
    (query,) = sent(schedule)
    query.found = {"base:allocation": [(SIZE, 3)]}
    schedule.ended(query, 0)
    assert schedule.finished[0][2] == Completion(1, Status.OK, SIZE, RECORD.size)


@pytest.mark.parametrize("flags", [Flag.NONE, Flag.MAY_HOLE])
def test_the_jobs_flag_decides_whether_zeroing_may_make_holes(flags: Flag) -> None:
    schedule = schedule_of()
    schedule.submit("lane", Job(1, Kind.ZERO, 0, 8, flags=flags), None)
    assert [command.may_hole for command in sent(schedule)] == [bool(flags)]


def test_every_ended_write_is_counted_so_that_what_is_known_of_zeros_grows_old() -> None:
    schedule = schedule_of()
    for number, error in ((1, 0), (2, errno.EIO)):
        write(schedule, number, 0, 8)
        schedule.ended(sent(schedule)[0], error)
        published(schedule)
        assert schedule.writes == number
