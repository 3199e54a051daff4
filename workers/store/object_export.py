"""An object of a store as a worker's connection: it is read in ranges, several at a time, and never changes."""

from __future__ import annotations

import errno
import os

from config.export import Export
from config.settings import S3Store, Store
from workers.image.connection import Event, Owner, State
from workers.image.local_export import LocalExport
from workers.image.loop import Loop
from workers.image.plan import Command, Limits, Operation
from workers.image.threads import Call, Threads
from workers.lane.protocol import ImageFacts
from workers.lane.store_format import Why
from workers.store.backing import Refusal
from workers.store.s3_objects import Objects
from workers.store.session import Outcome
from workers.store.steps import Step, carry_out

# A request to the server each; they wait more than they compute.
THREADS = 8
MOST_BYTES = 4 * 1024 * 1024


class ObjectExport(LocalExport):
    """The object `export.path` of the store."""

    def __init__(self, number: int, export: Export, store: Store, loop: Loop, owner: Owner) -> None:
        super().__init__(number, export, None, loop, owner)
        assert isinstance(store, S3Store)
        self._store = store
        self._objects: Objects | None = None

    def open(self) -> None:
        """Ask for the object's size, in a thread: `connected` or `disconnected` of the owner follows."""
        self._move(Event.OPEN)
        self._threads = Threads(self._loop, "object", THREADS, self._on_done)
        self._submit(Step(self._size, self._sized), carry_out)

    def _size(self) -> int:
        objects = self._objects = Objects(self._store)
        try:
            size = objects.size(self._path)
        except OSError as error:
            raise objects.refusal(error) from error
        if size is None:
            raise Refusal(Why.NOT_THERE, "there is no such object")
        return size

    def _sized(self, outcome: Outcome) -> None:
        if self.state is not State.CONNECTING:
            return
        if not isinstance(outcome, int):
            self.break_off(outcome.message if isinstance(outcome, Refusal) else f"no credentials: {outcome}")
            return
        for event in (Event.CONNECTED, Event.AGREED):
            self._move(event)
        self.was_ready = True
        self.server = (1, 1)  # nothing is ever written here
        self._owner.connected(self, Limits(_facts(outcome), MOST_BYTES))

    def _open(self) -> Limits:
        raise NotImplementedError  # open() does not ask

    def _close(self) -> None:
        self._objects = None

    def left_by(self, lane: object) -> None:
        """Nothing is kept for a lane."""

    def _call(self, command: Command) -> Call:
        return self._read if command.operation is Operation.READ else _cannot

    def _read(self, command: Command) -> None:
        assert command.buffer is not None
        assert self._objects is not None
        self._objects.read_into(self._path, command.buffer, command.offset)

    def _finished(self, command: Command, error: int) -> None:
        if isinstance(command, Step):
            command.then(command.outcome)
        else:
            super()._finished(command, error)


def _cannot(command: Command) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def _facts(size: int) -> ImageFacts:
    return ImageFacts(
        size_bytes=size,
        read_only=True,
        can_flush=False,
        can_zero=False,
        has_extents=False,
        multi_conn=False,
        block_bytes=1,
        bitmaps=[],
    )
