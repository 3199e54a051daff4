"""The worker's loop: who is called, when, and who is not any more."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from workers.image.loop import READ, WRITE, Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made._epoll.close()


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    yield one, other
    one.close()
    other.close()


def test_timers_are_called_in_the_order_of_their_times_and_equals_in_the_order_of_their_making(loop: Loop) -> None:
    called: list[str] = []
    loop.later(0.003, lambda: called.append("later"))
    loop.later(0, lambda: called.append("first"))
    loop.later(0, lambda: called.append("second"))
    while len(called) < 3:
        loop.run_once()
    assert called == ["first", "second", "later"]


def test_a_cancelled_timer_is_not_called_and_not_waited_for(loop: Loop) -> None:
    called: list[str] = []
    loop.later(3600, lambda: called.append("never")).cancel()
    loop.later(0, lambda: called.append("now"))
    loop.run_once()
    assert called == ["now"]
    assert loop._patience_s() == -1  # only descriptors could wake it


def test_a_timer_may_cancel_the_next_one_and_make_another(loop: Loop) -> None:
    called: list[str] = []

    def first() -> None:
        called.append("first")
        second.cancel()
        loop.later(0, lambda: called.append("third"))

    loop.later(0, first)
    second = loop.later(0, lambda: called.append("second"))
    while len(called) < 2:
        loop.run_once()
    assert called == ["first", "third"]


def test_a_descriptor_calls_with_what_it_is_ready_for(loop: Loop, ends: tuple[socket.socket, socket.socket]) -> None:
    one, other = ends
    called: list[int] = []
    loop.watch(one.fileno(), READ, called.append)
    other.send(b"!")
    loop.run_once()
    loop.watch(one.fileno(), READ | WRITE, called.append)
    loop.run_once()
    assert called == [READ, READ | WRITE]


def test_the_end_of_the_other_side_wakes_whoever_watches(loop: Loop, ends: tuple[socket.socket, socket.socket]) -> None:
    one, other = ends
    called: list[int] = []
    loop.watch(one.fileno(), 0, called.append)
    other.close()
    loop.run_once()
    assert len(called) == 1


def test_a_watch_replaces_the_one_before_and_unwatch_ends_it(
    loop: Loop, ends: tuple[socket.socket, socket.socket]
) -> None:
    one, other = ends
    called: list[str] = []
    other.send(b"!")
    loop.watch(one.fileno(), READ, lambda events: called.append("old"))
    loop.watch(one.fileno(), READ, lambda events: called.append("new"))
    loop.run_once()
    loop.unwatch(one.fileno())
    loop.unwatch(one.fileno())
    loop.later(0, lambda: called.append("timer"))
    loop.run_once()
    assert called == ["new", "timer"]


def test_who_is_unwatched_in_a_turn_is_not_called_in_it(loop: Loop, ends: tuple[socket.socket, socket.socket]) -> None:
    one, other = ends
    called: list[str] = []
    one.send(b"!")
    other.send(b"!")

    def first(name: str, rival: socket.socket) -> None:
        called.append(name)
        loop.unwatch(rival.fileno())

    loop.watch(one.fileno(), READ, lambda events: first("one", other))
    loop.watch(other.fileno(), READ, lambda events: first("other", one))
    loop.run_once()
    assert len(called) == 1


def test_an_event_of_a_closed_descriptor_is_not_for_the_next_one_of_that_number(loop: Loop) -> None:
    """A connection that is made in the turn in which a lane ends would take the lane's event for its own."""
    called: list[str] = []
    eventfds = {os.eventfd(1), os.eventfd(1)}

    def replace_the_other(mine: int) -> None:
        (victim,) = eventfds - {mine}
        loop.unwatch(mine)
        loop.unwatch(victim)
        os.close(victim)
        assert os.eventfd(0) == victim
        loop.watch(victim, READ, lambda events: called.append("stale"))
        called.append("first")

    one, other = eventfds
    loop.watch(one, READ, lambda events: replace_the_other(one))
    loop.watch(other, READ, lambda events: replace_the_other(other))
    loop.run_once()
    assert called == ["first"]
    for fd in eventfds:
        os.close(fd)
