"""A simulated front end: the real books, slots and rings of its lane, and clients that send one request at a time."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, cast

from tests.simulation.truth import Truth, Violation, Write
from workers.lane.books import Books, Entry
from workers.lane.lost_format import unpack
from workers.lane.protocol import Completion, Job, Kind, Status
from workers.lane.ring import Consumer, Producer, Rings, rings_bytes
from workers.lane.slots import Owner, Slots

# So few that a ring is full now and then, and slots are waited for.
CELLS = 2
SLOTS = 3
SLOT_BYTES = 96
UNWRITTEN = 255


class InFlight(Entry):
    """A job, and its completion when that was read."""

    __slots__ = ("completion",)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.completion: Completion | None = None


class Rung:
    """One attachment's rings. `point` is called before each store, with the side that is about to store."""

    def __init__(self, generation: int, point: Callable[[], None]) -> None:
        self.generation = generation
        self._rings = Rings(memoryview(bytearray(rings_bytes(CELLS))), CELLS)
        self._rings.words = cast(memoryview, WatchedWords(self._rings.words, point))
        self._point = point

    def front_end(self) -> tuple[Producer, Consumer]:
        producer, consumer = self._rings.front_end()
        return self._watched(producer), consumer

    def worker(self) -> tuple[Consumer, Producer]:
        consumer, producer = self._rings.worker()
        return consumer, self._watched(producer)

    def _watched(self, producer: Producer) -> Producer:
        pack = producer._pack
        producer._pack = lambda *fields: (self._point(), pack(*fields))[1]
        return producer


class WatchedWords:
    """The rings' words, each store announced before it happens."""

    def __init__(self, words: memoryview, point: Callable[[], None]) -> None:
        self._words = words
        self._point = point

    def __getitem__(self, word: int) -> int:
        return int(self._words[word])

    def __setitem__(self, word: int, value: int) -> None:
        self._point()
        self._words[word] = value


class FrontEnd:
    """One life of a front end, with one lane."""

    def __init__(self, number: int, truth: Truth, point: Callable[[], None]) -> None:
        self.number = number
        # When its doorbell at the worker was rung; None when the worker has heard it.
        self.rung: int | None = None
        self._truth = truth
        self.alive = True
        self.open = False
        self.rings: Rung | None = None
        self._point = point
        arena = memoryview(bytearray(SLOTS * SLOT_BYTES))
        self.views = [arena[at : at + SLOT_BYTES] for at in range(0, len(arena), SLOT_BYTES)]
        self.slots = Slots(SLOTS, 2)
        self.books: Books[InFlight] = Books(self.slots, CELLS)
        # What each job of a write is to the judge, and when each job's completion was published.
        self.writes: dict[int, Write] = {}
        self.published: dict[int, int] = {}
        self._submissions: Producer
        self._completions: Consumer

    def __str__(self) -> str:
        return f"front end {self.number}"

    # -- the lane, as FrontLane moves it ---------------------------------------------------------------------

    def attach(self, generation: int) -> Rung:
        self.detach()
        self.rings = Rung(generation, self._point)
        self._submissions, self._completions = self.rings.front_end()
        return self.rings

    def opened(self) -> None:
        self.open = True
        self.books.reopen(self.push)

    def detach(self) -> None:
        """The worker is gone: what it had published counts."""
        if self.rings is not None:
            self.read()
        self.open, self.rings, self.rung = False, None, None

    def read(self) -> None:
        """Read the completions that were published."""
        for generation, status, number, covered, value in self._completions.pop_all():
            assert self.rings is not None
            if generation != self.rings.generation:
                raise Violation(f"a completion of generation {generation}")
            entry = self.books.complete(Completion(number, Status(status), covered, value))
            entry.completion = Completion(number, Status(status), covered, value)
        self.books.push_unsent(self.push)

    def push(self, job: Job) -> bool:
        if any(entry.abandoned for entry in self.books.entries() if entry.job is job):
            raise Violation(f"{job} is submitted, and nobody waits for it any more")
        if not (self.open and self.rings is not None and self._submissions.push(self.rings.generation, *cell(job))):
            return False
        self.rung = self.rung or self._truth.now
        return True

    def readable(self) -> bool:
        return self.rings is not None and has_cells(self._completions)

    def idle(self) -> bool:
        """Nothing is in flight, and every slot has come back."""
        return not len(self.books) and all(self.slots.owner(slot) is Owner.FREE for slot in range(SLOTS))


def cell(job: Job) -> tuple[int, ...]:
    return (job.kind, job.flags, job.context, job.number, job.offset, job.length, job.slot, job.transfer)


def has_cells(consumer: Consumer) -> bool:
    return consumer._words[consumer._head_word] != consumer._tail


Wait = Generator[None, None, None]
Request = tuple[Any, ...]
"""The name of one of Client's methods after its underscore, and what that takes."""


class Client:
    """One client with one transfer: a list of requests, one after the other. Each `yield` waits for a completion."""

    def __init__(self, transfer: int, truth: Truth, requests: list[Request]) -> None:
        self.transfer = transfer
        self.requests = requests
        self.front: FrontEnd
        self.running: Wait | None = None
        self._truth = truth
        self._stepping = False
        self._began = 0
        self._write: Write | None = None
        self._entry: InFlight | None = None
        self._slot = -1

    @property
    def done(self) -> bool:
        return self.running is None and not self.requests

    @property
    def blocked(self) -> bool:
        """It waits for a completion, or for a slot."""
        if self._entry is not None:
            return self._entry.completion is None
        return self.running is not None and self._slot < 0 and not self._has_slot()

    def _has_slot(self) -> bool:
        return any(self.front.slots.owner(slot) is Owner.FREE for slot in range(SLOTS))

    def step(self) -> None:
        """Go on with the request, or begin the next one."""
        if self.running is None:
            name, *arguments = self.requests.pop(0)
            self._began = self._truth.now
            self.running = getattr(self, f"_{name}")(*arguments)
        assert self.running is not None
        self._stepping = True
        try:
            next(self.running)
        except StopIteration:
            self.running = None
        finally:
            self._stepping = False

    def leave(self) -> None:
        """The client breaks its request off; its front end lives."""
        assert self.running is not None
        self._forget()
        if self._entry is not None and self._entry in self.front.books:
            self.front.books.abandon(self._entry)
        elif self._slot >= 0:
            self.front.slots.release(self._slot)
        self._entry, self._slot = None, -1

    def orphan(self) -> None:
        """The front end is dead."""
        self._forget()
        self._entry, self._slot = None, -1

    def _forget(self) -> None:
        if self._write is not None and self._write.ended is None:
            self._truth.leave(self._write)
        self._write = None
        running, self.running = self.running, None
        if running is not None and not self._stepping:  # else the death of its front end ends it
            running.close()

    # -- requests --------------------------------------------------------------------------------------------

    def _run(self, kind: Kind, offset: int = 0, length: int = 0, **fields: int) -> Generator[None, None, Completion]:
        job = self.front.books.job(kind, offset, length, slot=self._slot, transfer=self.transfer, **fields)
        self._entry = entry = InFlight(job)
        if self._write is not None:
            self.front.writes[job.number] = self._write
        self.front.books.enter(entry, self.front.push)
        while entry.completion is None:
            yield
        self._entry = None
        return entry.completion

    def _take_slot(self, fill: int) -> Wait:
        holder = self.front.slots.enter()
        try:
            while (slot := self.front.slots.take_nowait(holder)) is None:
                yield
        finally:
            self.front.slots.leave(holder)
        self._slot = slot
        self.front.views[slot][:] = bytes([fill]) * SLOT_BYTES

    def _give_slot_back(self) -> None:
        self.front.slots.release(self._slot)
        self._slot = -1

    def _put(self, name: str, offset: int, length: int, value: int) -> Wait:
        yield from self._take_slot(value)
        yield from self._store(Kind.WRITE, name, offset, length, value)

    def _zero(self, name: str, offset: int, length: int) -> Wait:
        yield from self._store(Kind.ZERO, name, offset, length, 0)

    def _store(self, kind: Kind, name: str, offset: int, length: int, value: int) -> Wait:
        self._write = write = self._truth.begin(name, self.transfer, offset, length, value)
        completion = yield from self._run(kind, offset, length)
        if self._slot >= 0:
            self._give_slot_back()
        if completion.status is Status.OK:
            self._truth.acknowledge(write)
        else:
            self._truth.leave(write)
        self._write = None

    def _read(self, offset: int, length: int) -> Wait:
        yield from self._take_slot(UNWRITTEN)
        completion = yield from self._run(Kind.READ, offset, length)
        if completion.status is Status.OK:
            self._truth.read(self._began, offset, bytes(self.front.views[self._slot][:length]))
        self._give_slot_back()

    def _flush(self) -> Wait:
        began = self._truth.now
        completion = yield from self._run(Kind.FLUSH)
        if completion.status is Status.OK:
            self._truth.flush_answered(self.transfer, began)
        elif completion.status is Status.LOST:
            yield from self._tell_lost(began)

    def _tell_lost(self, began: int) -> Wait:
        """As Images._tell_lost does: ask, answer the client, and only then strike it off."""
        yield from self._take_slot(0)
        asked = self._truth.now
        completion = yield from self._run(Kind.LOST)
        known = self.front.published[completion.number]
        answer = bytes(self.front.views[self._slot][: completion.value])
        self._give_slot_back()
        losses, lost = unpack(memoryview(answer))
        if not lost:
            return
        self._truth.flush_failed(self.transfer, began, known, lost)
        yield
        told = yield from self._run(Kind.TOLD, losses)
        if told.status is Status.OK:
            self._truth.told(self.transfer, asked)
