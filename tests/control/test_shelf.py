"""A front end's tickets: who uses them, and what it tells the supervisor of that."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest

from config.export import Export
from config.settings import FrontSettings
from mover.front import tickets
from mover.front.link import Host, Link
from mover.front.ranges import Span
from mover.front.tickets import TicketShelf
from mover.serve.messages import AskTicket, Ticket, TicketFirstUsed, TicketReleased, Tickets, TicketsUsed, ToFrontEnd
from tests.harness.waiting import PATIENCE_S
from workers.lane.channel import Channel

EXPORT = Export(transport="unix", socket="/disk.sock")


class Wire:
    """A client's connection."""

    lost = False


class Someone:
    """A request that does nothing."""

    client = "unix"

    def __init__(self, moved: Span | None = None) -> None:
        self.connection = Wire()
        self.moved = moved
        self.canceled = False

    def cancel(self) -> None:
        self.canceled = True


def ticket(version: int, ticket_id: str = "one") -> Ticket:
    return Ticket(ticket_id, version, EXPORT)


def shelf(
    play: Callable[[TicketShelf], Coroutine[Any, Any, None]], told: list[msgspec.Struct] | None = None
) -> list[msgspec.Struct]:
    """Play with a shelf; what it has told the supervisor, in `told` while it plays."""
    told = [] if told is None else told

    async def run() -> None:
        await play(TicketShelf(told.append, lambda ticket: None))

    asyncio.run(run())
    return told


def test_a_ticket_that_nobody_uses_is_released_at_once() -> None:
    """Whether it was removed or replaced."""

    async def play(shelf: TicketShelf) -> None:
        shelf.apply(Tickets(1, [ticket(1)]))
        shelf.apply(Tickets(2, [ticket(2)]))
        shelf.apply(Tickets(3, removed=["one", "unknown"]))
        assert shelf.get("one") is None

    assert shelf(play) == [TicketReleased(1), TicketReleased(2)]


def test_a_ticket_in_use_is_released_with_its_last_request() -> None:
    """Requests of its successor do not count."""

    async def play(shelf: TicketShelf) -> None:
        old, new = ticket(1), ticket(2)
        one, two, three, four = (Someone() for _ in range(4))
        shelf.apply(Tickets(1, [old]))
        shelf.enter(old, one)
        shelf.enter(old, two)
        shelf.apply(Tickets(2, [new]))
        shelf.enter(new, three)
        shelf.leave(old, one)
        shelf.leave(new, three)
        shelf.enter(new, four)
        assert TicketReleased(1) not in told
        shelf.leave(old, two)

    told: list[msgspec.Struct] = []
    assert [one for one in shelf(play, told) if isinstance(one, TicketReleased)] == [TicketReleased(1)]


def test_use_is_told_now_and_then_and_not_without_any(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as a request lasts, once after it, and then no more."""
    monkeypatch.setattr(tickets, "USED_S", 0.01)

    async def play(shelf: TicketShelf) -> None:
        shelf.apply(Tickets(1, [ticket(1), ticket(2, "two")]))
        one, two = Someone(), Someone()
        shelf.enter(ticket(1), one)
        shelf.enter(ticket(2), two)
        shelf.leave(ticket(2), two)
        async with asyncio.timeout(PATIENCE_S):
            while len(told) < 5:
                await asyncio.sleep(0)
        shelf.leave(ticket(1), one)
        while shelf._telling is not None:
            await asyncio.sleep(0)

    told: list[msgspec.Struct] = []
    shelf(play, told)
    assert told[:2] == [TicketFirstUsed(1, "unix"), TicketFirstUsed(2, "unix")]
    uses = [sorted(use.version for use in one.uses) for one in told if isinstance(one, TicketsUsed)]
    assert uses == [[1, 2], [1], [1], [1]]
    assert len(told) == 6


def test_many_who_want_one_id_are_one_question() -> None:
    """All have the answer, also when the first of them has left; the next one asks again."""

    async def play(shelf: TicketShelf) -> None:
        asking = [asyncio.ensure_future(shelf.ask("one")) for _ in range(3)]
        await asyncio.sleep(0)
        asking[0].cancel()
        await asyncio.sleep(0)
        shelf.apply(Tickets(1, [ticket(1)]))
        shelf.answered("one")
        shelf.answered("never asked")
        assert await asking[1] == await asking[2] == ticket(1)
        again = asyncio.ensure_future(shelf.ask("two"))
        await asyncio.sleep(0)
        shelf.answered("two")
        assert await again is None

    assert shelf(play) == [AskTicket("one"), AskTicket("two")]


def test_nothing_is_kept_of_a_ticket_that_was_replaced_while_it_was_used() -> None:
    """Its requests still ask for its export's key, up to the last one's end."""

    async def play() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            link = Link(Channel(ours, ToFrontEnd), FrontSettings(), Mock(spec=Host))
            old, one = ticket(1), Someone()
            link._handle(Tickets(1, [old]), [])
            link.tickets.enter(old, one)
            link._handle(Tickets(2, [ticket(2)]), [])
            assert link.key(old) == EXPORT.key
            link.tickets.leave(old, one)
            assert link._keys == {}

    asyncio.run(play())
