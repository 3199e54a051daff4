"""The supervisor's rules, without any process: restarts, tickets, lanes, doubts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import msgspec
import pytest

from config.export import Export
from mover.serve.doubts import RANGES_MOST, Doubts
from mover.serve.lanes import Lane, LaneBook
from mover.serve.line import Line, Waiting
from mover.serve.messages import GiveBack, OpenLane, Ticket, ToFrontEnd
from mover.serve.restarts import HEALTHY_S, Backoff, Deaths, pause_s
from mover.serve.tickets import TicketBook
from workers.lane.channel import PACKET_BYTES

EXPORT = Export(transport="unix", socket="/disk.sock")


def ticket(ticket_id: str) -> Ticket:
    return Ticket(ticket_id, 0, EXPORT)


class Someone:
    """A front end that takes messages and does nothing."""

    number = 1

    def send(self, message: ToFrontEnd, fds: Sequence[int] = ()) -> None:
        """Drop it."""


# -- restarts ----------------------------------------------------------------------------------------------------


def test_pauses_double_up_to_the_longest() -> None:
    """The first restart is at once, then 0.1 s doubles until the setting's limit."""
    assert [pause_s(deaths, 5.0) for deaths in range(1, 9)] == [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert pause_s(100_000, 5.0) == 5.0


def test_health_begins_a_new_series() -> None:
    """A front end that lived for ten seconds is restarted at once; one second less goes on with the series."""
    backoff = Backoff(5.0)
    backoff.started(0.0)
    assert [backoff.died(1.0), backoff.died(1.1)] == [0.0, 0.1]
    backoff.started(2.0)
    assert backoff.died(2.0 + HEALTHY_S - 1) == 0.2
    backoff.started(20.0)
    assert backoff.died(20.0 + HEALTHY_S) == 0.0


def test_deaths_in_a_row_are_counted_between_completed_jobs() -> None:
    """Only deaths without a completed job in between lead to giving up."""
    deaths = Deaths(3, 5.0)
    assert [deaths.died(0), deaths.died(0), deaths.died(1), deaths.died(1)] == [0.0, 0.1, 0.0, 0.1]
    assert deaths.died(1) is None


def test_after_giving_up_the_count_begins_again() -> None:
    """A fresh start has all its chances."""
    deaths = Deaths(2, 5.0)
    assert [deaths.died(0), deaths.died(0), deaths.died(0), deaths.died(0)] == [0.0, None, 0.0, None]


# -- tickets -----------------------------------------------------------------------------------------------------


def test_a_version_is_never_used_again() -> None:
    """Installing an id again, also after a removal, makes a new version."""
    book = TicketBook()
    changes = [book.install(ticket("a")), book.install(ticket("a")), book.remove("a"), book.install(ticket("a"))]
    assert [ticket.version for change in changes if change for ticket in change.installed] == [1, 2, 3]


def test_removing_what_is_not_there_is_no_change() -> None:
    """There is nothing to push then."""
    assert TicketBook().remove("a") is None


def test_a_change_settles_when_every_follower_has_applied_it() -> None:
    """One acknowledgement out of two is not enough."""
    book = TicketBook()
    for follower in ("x", "y"):
        book.applied(follower, book.join(follower)[-1].number)
    number = book.install(ticket("a")).number
    assert not book.settled(number)
    book.applied("x", number)
    assert not book.settled(number)
    book.applied("y", number)
    assert book.settled(number)


def test_a_dead_follower_holds_nothing_up() -> None:
    """What it did not apply, its successor gets with the whole set."""
    book = TicketBook()
    book.join("x")
    number = book.install(ticket("a")).number
    book.leave("x")
    assert book.settled(number)


def test_a_new_follower_gets_the_present_only() -> None:
    """Tickets that were replaced or removed are not in the set; an empty set is one message, too."""
    book = TicketBook()
    assert [change.installed for change in book.join("x")] == [[]]
    book.install(ticket("a"))
    book.install(ticket("b"))
    book.install(ticket("a"))
    book.remove("b")
    assert [[ticket.version for ticket in change.installed] for change in book.join("y")] == [[3]]


def test_part_of_a_set_is_not_the_set() -> None:
    """A follower that has acknowledged all pieces but the last does not have what was changed before it came."""
    book = TicketBook()
    for number in range(3000):
        book.install(ticket(f"{number:0200}"))
    pieces = book.join("x")
    assert len(pieces) > 2
    assert all(len(msgspec.msgpack.encode(piece)) <= PACKET_BYTES for piece in pieces)
    assert all(one.number < two.number for one, two in pairwise(pieces))
    book.applied("x", pieces[-2].number)
    assert not book.has_applied("x", pieces[-1].number)


def test_acknowledgements_only_go_forward_and_not_beyond() -> None:
    """A follower cannot have applied what was never sent, nor take back what it has."""
    book = TicketBook()
    number = book.join("x")[-1].number
    assert not book.applied("x", number + 1)
    assert book.applied("x", number)
    assert not book.applied("x", number - 1)


def test_a_replaced_ticket_is_retired_until_every_follower_has_released_it() -> None:
    """Followers that came later, and those that have died, do not count."""
    book = TicketBook()
    for follower in ("x", "y", "z"):
        book.join(follower)
    book.install(ticket("a"))
    book.install(ticket("a"))
    retired = book.retired("a")
    assert retired == {1}
    book.join("late")
    assert book.released("x", 1)
    book.leave("y")
    assert not book.is_released(retired)
    assert book.released("z", 1)
    assert book.is_released(retired)
    assert book.retired("a") == set()


def test_only_what_is_retired_there_can_be_released() -> None:
    """Not a ticket in force, not one twice, not one that the follower never had."""
    book = TicketBook()
    book.install(ticket("a"))
    book.join("x")
    book.join("y")
    assert not book.released("x", 1)
    book.remove("a")
    book.join("late")
    assert not book.released("late", 1)
    assert book.released("x", 1)
    assert not book.released("x", 1)


def test_a_retired_ticket_can_still_be_canceled() -> None:
    """As long as somebody uses it: its requests end then, too."""
    book = TicketBook()
    book.join("x")
    book.install(ticket("a"))
    book.remove("a")
    assert book.remove("a") is None
    change = book.remove("a", cancel=True)
    assert change is not None
    assert (change.removed, change.cancel) == (["a"], True)
    book.released("x", 1)
    assert book.remove("a", cancel=True) is None


def test_without_followers_nothing_is_in_use() -> None:
    """Then a removed ticket needs no release."""
    book = TicketBook()
    book.install(ticket("a"))
    book.remove("a")
    assert book.retired("a") == set()


def test_a_version_is_known_as_long_as_somebody_uses_it() -> None:
    """In force or retired; each has the transfer that it was given, or its own number."""
    book = TicketBook()
    book.join("x")
    book.install(ticket("a"))
    book.install(ticket("a"))
    book.install(ticket("b"))
    known = {version: book.of_version(version) for version in (1, 2, 3)}
    assert {version: one.id for version, one in known.items() if one} == {1: "a", 2: "a", 3: "b"}
    assert {version: one.transfer for version, one in known.items() if one} == {1: 1, 2: 2, 3: 3}
    book.released("x", 1)
    assert book.of_version(1) is book.of_version(99) is None
    [kept] = book.install(Ticket("c", 0, EXPORT, transfer=77)).installed
    assert (kept.version, kept.transfer) == (4, 77)


# -- lanes -------------------------------------------------------------------------------------------------------


def test_the_limit_counts_what_is_open() -> None:
    """Closing a lane gives its arena back, closing it twice gives nothing more."""
    book = LaneBook(100)
    lane = Lane(Someone(), 1, EXPORT, 60)
    book.add(lane)
    assert book.has_room(40)
    assert not book.has_room(41)
    book.remove(lane)
    book.remove(lane)
    assert book.has_room(100)
    assert not book.has_room(101)


def test_numbers_belong_to_their_front_end() -> None:
    """Two front ends may have a lane 1 each; one may not have two."""
    book = LaneBook(100)
    one, two = Someone(), Someone()
    book.add(Lane(one, 1, EXPORT, 1))
    book.add(Lane(two, 1, EXPORT, 1))
    with pytest.raises(ValueError, match="open already"):
        book.add(Lane(one, 1, EXPORT, 1))
    assert [lane.front_end for lane in book.of_front_end(two)] == [two]


def test_lanes_of_an_export_do_not_ask_for_its_bitmap() -> None:
    """Exports that differ by bitmap only are one disk, served by one worker."""
    book = LaneBook(100)
    front_end = Someone()
    other = Export(transport="unix", socket="/other.sock")
    for number, export in enumerate([EXPORT, msgspec.structs.replace(EXPORT, bitmap="b0"), other]):
        book.add(Lane(front_end, number, export, 1))
    assert [lane.number for lane in book.of_export(EXPORT.key)] == [0, 1]


def test_a_lane_that_is_busy_at_first_makes_room_when_it_is_idle() -> None:
    """Who waits for memory has front ends asked again, and is not refused when one could give some later."""

    async def wait() -> list[ToFrontEnd]:
        book, opened = LaneBook(100), asyncio.Event()
        line = Line(book)
        told: list[ToFrontEnd] = []

        class BusyAtFirst(Someone):
            def send(self, message: ToFrontEnd, fds: Sequence[int] = ()) -> None:
                told.append(message)
                if len(told) == 2:
                    book.remove(lane)
                    line.move_on()
                if not isinstance(message, GiveBack):
                    opened.set()

        lane = Lane(BusyAtFirst(), 1, EXPORT, 100)
        book.add(lane)
        line.join(Waiting(lane.front_end, OpenLane(2, EXPORT, 100), opened.set))
        await opened.wait()
        return told

    assert asyncio.run(wait()) == [GiveBack(100), GiveBack(100)]


# -- doubts ------------------------------------------------------------------------------------------------------


def test_a_fence_leaves_no_doubts() -> None:
    """Where every connection was seen to end, what was begun is done or will never be."""
    assert Doubts().after_death(True, [(0, 512, 1)], 1.0, 10.0) == Doubts([], 0.0)


def test_a_failed_fence_leaves_doubts_for_the_settling_time() -> None:
    """What the ledger holds as begun is in doubt from now on."""
    assert Doubts().after_death(False, [(0, 512, 1)], 1.0, 10.0) == Doubts([(0, 512, 1)], 11.0)


def test_another_worker_s_fence_does_not_end_older_doubts() -> None:
    """The connection that was not seen to end may still write, whoever died since; until its time is over."""
    doubts = Doubts([(0, 512, 1)], 11.0)
    assert doubts.after_death(True, [], 10.0, 10.0) == doubts
    assert doubts.after_death(True, [], 11.0, 10.0) == Doubts([], 0.0)
    assert doubts.after_death(False, [(512, 512, 2)], 10.0, 10.0) == Doubts([(0, 512, 1), (512, 512, 2)], 20.0)


def test_too_many_doubts_become_one() -> None:
    """A list that would not fit its packet is one range around all of them."""
    begun = [(at * 1024, 512, at) for at in range(1, RANGES_MOST + 2)]
    assert Doubts().after_death(False, begun, 0.0, 1.0).ranges == [(1024, RANGES_MOST * 1024 + 512, 0)]
