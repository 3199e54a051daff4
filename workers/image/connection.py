"""What a worker has between its schedule and the bytes: a connection to an NBD server, or an open file.

    CLOSED ──open──► CONNECTING ──connected──► HANDSHAKE ──agreed──► READY
      ▲                  │ broken                  │ broken             │ broken
      │                  ▼                         ▼                    ▼
      └────ended──── FENCING ◄─────────────────────┴────────────────────┘

In FENCING it ends: nothing new is sent, and what was sent lands, or never will. Commands without an answer are given
back only after that.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Protocol

from workers.image.plan import Command, Limits


class State(Enum):
    """Where a connection is in its life."""

    CLOSED = auto()
    CONNECTING = auto()
    HANDSHAKE = auto()
    READY = auto()
    FENCING = auto()


class Event(Enum):
    """What happens to a connection."""

    OPEN = auto()
    CONNECTED = auto()
    AGREED = auto()
    BROKEN = auto()
    ENDED = auto()


STATES: dict[tuple[State, Event], State] = {
    (State.CLOSED, Event.OPEN): State.CONNECTING,
    (State.CONNECTING, Event.CONNECTED): State.HANDSHAKE,
    (State.CONNECTING, Event.BROKEN): State.FENCING,
    (State.HANDSHAKE, Event.AGREED): State.READY,
    (State.HANDSHAKE, Event.BROKEN): State.FENCING,
    (State.READY, Event.BROKEN): State.FENCING,
    (State.FENCING, Event.ENDED): State.CLOSED,
}


class Connection(Protocol):
    """One way to the bytes; `number` is unique in its worker.

    `server` tells who keeps the bytes that are not flushed yet: (pid, start time) of an NBD server, (device, inode) of
    a file, (0, 0) where it cannot be told. `was_ready`: commands may have been sent on it.
    """

    number: int
    state: State
    server: tuple[int, int]
    was_ready: bool

    @property
    def in_flight(self) -> int:
        """Commands that were not answered yet."""

    @property
    def waited_s(self) -> float:
        """How long the oldest command in flight has waited, where a fence can help against that; else 0."""

    def open(self) -> None:
        """Begin; `connected` or `disconnected` of the owner follows."""

    def send(self, command: Command) -> None:
        """Send one command; its buffer is the connection's until it has ended."""

    def settle(self) -> None:
        """After commands were sent or answered: collect what has ended."""

    def break_off(self, why: str) -> None:
        """End it now and fence it."""

    def leave(self) -> None:
        """End it in peace; nothing may be in flight."""

    def left_by(self, lane: object) -> None:
        """This lane is closed: what is kept for it goes."""


class Owner(Protocol):
    """Who a connection reports to."""

    def connected(self, connection: Connection, limits: Limits) -> None:
        """It is READY."""

    def ended(self, command: Command, error: int) -> None:
        """The server answered a command."""

    def disconnected(self, connection: Connection, why: str, commands: list[Command], fenced: bool) -> None:
        """It is CLOSED; `commands` had no answer. If not `fenced`, the server may still apply them."""

    def introduce(self, connection: Connection, fd: int) -> None:
        """The server agreed: the supervisor gets a duplicate of the socket before any command is sent on it."""
