"""What all connections share whose commands are carried out by threads: files, stores, and objects of stores.

There is nothing to fence: a call that has begun ends, or its process does. So there is no deadline either: the call may
still take bytes from a slot, and a slot that is somebody else's by then would give it the wrong ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from config.export import Export
from workers.image.connection import STATES, Event, Owner, State
from workers.image.loop import Loop
from workers.image.plan import Command, Limits
from workers.image.threads import Call, Threads


class ThreadedExport(ABC):
    """A connection whose commands threads carry out; `number` is unique in this worker.

    Subclasses open it, with `start` or by themselves, and say what a command does.
    """

    def __init__(self, number: int, export: Export, loop: Loop, owner: Owner) -> None:
        self.number = number
        self.state = State.CLOSED
        self.server = (0, 0)
        self.was_ready = False
        self._path = export.path
        self._loop = loop
        self._owner = owner
        self._threads: Threads | None = None
        self._in_flight: set[Command] = set()
        self._why = ""

    @property
    def in_flight(self) -> int:
        """Commands that have not ended."""
        return len(self._in_flight)

    @property
    def waited_s(self) -> float:
        """Always 0: breaking off would not end a system call."""
        return 0.0

    def _move(self, event: Event) -> None:
        self.state = STATES[self.state, event]

    # -- life ------------------------------------------------------------------------------------------------

    @abstractmethod
    def open(self) -> None:
        """Open it: `connected` or `disconnected` of the owner is called now or later."""

    def _start(self, name: str, count: int) -> None:
        """Have so many threads."""
        self._threads = Threads(self._loop, name, count, self._on_done)

    def _ready(self, limits: Limits) -> None:
        """It is open."""
        for event in (Event.CONNECTED, Event.AGREED):
            self._move(event)
        self.was_ready = True
        self._owner.connected(self, limits)

    def break_off(self, why: str) -> None:
        """End it when what is in flight has ended."""
        if self.state in (State.CLOSED, State.FENCING):
            return
        self._move(Event.BROKEN)
        self._why = why
        self._end_if_idle()

    def leave(self) -> None:
        """End it; nothing may be in flight."""
        self.break_off("leaving")

    def _end_if_idle(self) -> None:
        if self.state is not State.FENCING or self._in_flight:
            return
        if self._threads is not None:
            self._threads.close()
            self._threads = None
        self._close()
        self._move(Event.ENDED)
        self._owner.disconnected(self, self._why, [], True)

    # -- commands --------------------------------------------------------------------------------------------

    def send(self, command: Command) -> None:
        """Have a thread carry it out."""
        self._submit(command, self._call(command))

    def _submit(self, command: Command, call: Call) -> None:
        assert self._threads is not None
        self._in_flight.add(command)
        self._threads.submit(command, call)

    def settle(self) -> None:  # noqa: B027 - the same for all of them, and not for subclasses to say
        """What has ended comes by the threads' doorbell."""

    def _on_done(self, command: Command, error: int) -> None:
        self._in_flight.remove(command)
        self._finished(command, error)
        self._end_if_idle()

    def _finished(self, command: Command, error: int) -> None:
        self._owner.ended(command, error)

    # -- what each kind has its own way of --------------------------------------------------------------------

    @abstractmethod
    def _close(self) -> None:
        """Close what is open; no thread uses it any more."""

    @abstractmethod
    def _call(self, command: Command) -> Call:
        """What carries the command out."""

    @abstractmethod
    def left_by(self, lane: object) -> None:
        """This lane is closed: what is kept for it goes."""
