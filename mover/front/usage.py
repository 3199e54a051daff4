"""How one ticket is used at this front end: its requests, connections, and the bytes they moved. Rules, no I/O."""

from __future__ import annotations

from itertools import islice
from typing import Protocol

from mover.front.ranges import Span
from mover.serve.messages import TicketUse

# More runs than these are told to the supervisor before their time. A run takes 20 bytes of a packet at most.
RUNS_MOST = 1024


class Moving(Protocol):
    """A body under way."""

    @property
    def moved(self) -> Span:
        """What it has moved so far."""

    @property
    def began(self) -> bool:
        """Whether the client may have seen a byte of the answer."""


class Connection(Protocol):
    """A client's connection."""

    @property
    def lost(self) -> bool:
        """Whether it has ended."""


class Guest(Protocol):
    """A request that uses a ticket."""

    @property
    def connection(self) -> Connection:
        """The client's connection."""

    @property
    def client(self) -> str:
        """Who asks, for people."""

    @property
    def moved(self) -> Span | None:
        """What it has moved so far, if it moves anything."""

    def cancel(self) -> None:
        """Its ticket was canceled: end it now."""


class Usage:
    """The requests that use one version of a ticket, from its first one on."""

    __slots__ = ("_connections", "_measured", "_runs", "guests", "left_s")

    def __init__(self, measured: bool) -> None:
        self.guests: set[Guest] = set()
        self.left_s = 0.0  # when the last one left; the loop's clock
        self._measured = measured
        self._connections: set[Connection] = set()
        self._runs: list[tuple[int, int]] = []  # (start, end), as they came, neighbours merged

    @property
    def is_full(self) -> bool:
        """So many runs are kept that they should be told."""
        return len(self._runs) >= RUNS_MOST

    def enter(self, guest: Guest) -> None:
        """A request uses it from now on."""
        self.guests.add(guest)
        self._connections.add(guest.connection)

    def leave(self, guest: Guest, now_s: float) -> None:
        """A request uses it no more."""
        self.guests.discard(guest)
        self.left_s = now_s
        if self._measured:
            self._note(guest.moved)

    def _note(self, span: Span | None) -> None:
        if span is None or not span.length:
            return
        end = span.offset + span.length
        if self._runs and self._runs[-1][1] == span.offset:
            self._runs[-1] = (self._runs[-1][0], end)
        else:
            self._runs.append((span.offset, end))

    def told(self, version: int, now_s: float) -> TicketUse:
        """What is to be told of it now; what has been told is forgotten."""
        runs, self._runs = self._runs, []
        if self._measured:
            runs += [_run(guest.moved) for guest in islice(self.guests, RUNS_MOST)]
        moved = [(start, end - start) for start, end in runs if end > start]
        self._connections = {one for one in self._connections if not one.lost}
        idle_s = 0.0 if self.guests else now_s - self.left_s
        return TicketUse(version, len(self.guests), len(self._connections), idle_s, moved)


def _run(span: Span | None) -> tuple[int, int]:
    return (0, 0) if span is None else (span.offset, span.offset + span.length)
