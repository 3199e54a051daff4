"""An object of a store as a worker's connection: it is read in ranges, several at a time, and never changes."""

from __future__ import annotations

import errno
import os

from config.export import Export
from config.store_settings import ObjectStore, Store
from workers.image.connection import Event, Owner, State
from workers.image.loop import Loop
from workers.image.plan import Command, Limits, Operation
from workers.image.threaded_export import ThreadedExport
from workers.image.threads import Call
from workers.lane.protocol import ImageFacts
from workers.lane.store_format import Why
from workers.store.backing import Refusal
from workers.store.objects.kinds import open_objects
from workers.store.objects.read_ahead import ReadAhead
from workers.store.session import Outcome
from workers.store.steps import Step, carry_out

# A request to the server each; they wait more than they compute.
THREADS = 8
MOST_BYTES = 4 * 1024 * 1024


class ObjectExport(ThreadedExport):
    """The object `export.path` of the store."""

    def __init__(self, number: int, export: Export, store: Store, loop: Loop, owner: Owner) -> None:
        super().__init__(number, export, loop, owner)
        assert isinstance(store, ObjectStore)
        self._store = store
        self._reading: ReadAhead | None = None

    def open(self) -> None:
        """Ask for the object's size, in a thread: `connected` or `disconnected` of the owner follows."""
        self._move(Event.OPEN)
        self._start("object", THREADS)
        self._submit(Step(self._size, self._sized), carry_out)

    def _size(self) -> int:
        objects = open_objects(self._store)
        try:
            size = objects.size(self._path)
        except OSError as error:
            raise objects.refusal(error) from error
        if size is None:
            raise Refusal(Why.NOT_THERE, "there is no such object")
        self._reading = ReadAhead(size, lambda offset, length: objects.read_bytes(self._path, offset, length))
        return size

    def _sized(self, outcome: Outcome) -> None:
        if self.state is not State.CONNECTING:
            return
        if not isinstance(outcome, int):
            self.break_off(outcome.message if isinstance(outcome, Refusal) else f"cannot open the object: {outcome}")
            return
        self.server = (1, 1)  # nothing is ever written here
        self._ready(Limits(_facts(outcome), MOST_BYTES))

    def _close(self) -> None:
        if self._reading is not None:
            self._reading.close()
            self._reading = None

    def left_by(self, lane: object) -> None:
        """Nothing is kept for a lane."""

    def _call(self, command: Command) -> Call:
        return self._read if command.operation is Operation.READ else _cannot

    def _read(self, command: Command) -> None:
        assert command.buffer is not None
        assert self._reading is not None
        self._reading.read_into(command.buffer, command.offset)

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
    )
