"""What the ledger must say, spelled out byte by byte, and the steps that the tests drive both with."""

from __future__ import annotations

import sys
from collections.abc import Callable

from hypothesis import strategies as st

from workers.image import ledger as module
from workers.image.ledger import Ledger, LedgerFull, LedgerMisused, begun
from workers.image.range_set import Range

TRANSFERS = (1, 2, 3)
Step = tuple[str, tuple[object, ...]]


def span(offset: int, length: int) -> set[int]:
    return set(range(offset, offset + length))


def members(ranges: list[Range]) -> set[int]:
    return {byte for offset, length in ranges for byte in span(offset, length)}


class Model:
    """The same methods as Ledger's, on sets of bytes."""

    def __init__(self) -> None:
        self.open: dict[int, set[int]] = {}
        self.orphans: set[int] = set()
        self.dirty: dict[int, set[int]] = {transfer: set() for transfer in TRANSFERS}
        self.flushing: dict[int, set[int]] | None = None
        self.gone: dict[int, set[int]] = {transfer: set() for transfer in TRANSFERS}
        self.identity: tuple[int, int] | None = None

    def begin(self, tag: int, offset: int, length: int) -> None:
        if tag in self.open:
            raise LedgerMisused
        if len(self.open) == module.OPEN_MOST:
            raise LedgerFull("", 0)
        self.open[tag] = span(offset, length)

    def written(self, tag: int, transfer: int, offset: int, length: int) -> None:
        owed = {one for one in TRANSFERS if self.unflushed_of(one) or self.gone[one]}
        if transfer not in owed and len(owed) == module.TRANSFERS_MOST:
            raise LedgerFull("", 0)
        self.open.pop(tag, None)
        self.dirty[transfer] |= span(offset, length)
        self.gone[transfer] -= span(offset, length)

    def failed(self, tag: int) -> None:
        self.open.pop(tag, None)

    def abandoned(self, tag: int) -> None:
        self.orphans |= self.open.pop(tag, set())

    def clear_doubts(self) -> None:
        self.orphans.clear()

    def flush_started(self) -> None:
        if self.flushing is not None:
            raise LedgerMisused
        self.flushing = self.dirty
        self.dirty = {transfer: set() for transfer in TRANSFERS}

    def flush_done(self) -> None:
        self.flushing = None

    def flush_failed(self) -> None:
        for transfer, flushing in (self.flushing or {}).items():
            self.dirty[transfer] |= flushing
        self.flushing = None

    def server(self, identity: tuple[int, int]) -> bool:
        other = self.identity is not None and (identity == (0, 0) or identity != self.identity)
        self.identity = identity
        loses = other and any(map(self.unflushed_of, TRANSFERS))
        if other:
            self.server_lost()
        return loses

    def server_lost(self) -> None:
        self.flush_failed()
        for transfer in TRANSFERS:
            self.gone[transfer] |= self.dirty[transfer]
            self.dirty[transfer] = set()

    def told(self, transfer: int) -> None:
        self.gone[transfer] = set()

    def forget(self, transfer: int) -> None:
        self.told(transfer)
        self.dirty[transfer] = set()
        if self.flushing is not None:
            self.flushing[transfer] = set()

    def reopen(self) -> None:
        """The writer dies and a successor takes over."""
        for tag in list(self.open):
            self.abandoned(tag)
        self.flush_failed()

    def doubts(self) -> set[int]:
        return self.orphans.union(*self.open.values())

    def unflushed_of(self, transfer: int) -> bool:
        return bool(self.dirty[transfer] or (self.flushing or {}).get(transfer))


def steps(image_bytes: int, transfers: int) -> st.SearchStrategy[list[Step]]:
    """Lists of calls that a worker might make, sensible or not."""
    tag = st.integers(0, 4)
    transfer = st.sampled_from(TRANSFERS[:transfers])
    offset = st.integers(0, image_bytes - 2)
    length = st.integers(1, 2)
    identity = st.sampled_from([(0, 0), (8, 1), (9, 1)])
    calls: list[st.SearchStrategy[Step]] = [
        st.tuples(st.just("begin"), st.tuples(tag, offset, length)),
        st.tuples(st.just("written"), st.tuples(tag, transfer, offset, length)),
        st.tuples(st.sampled_from(["failed", "abandoned"]), st.tuples(tag)),
        st.tuples(st.just("server"), st.tuples(identity)),
        st.tuples(st.sampled_from(["told", "forget"]), st.tuples(transfer)),
        st.tuples(
            st.sampled_from(["flush_started", "flush_done", "flush_failed", "server_lost", "clear_doubts", "reopen"]),
            st.just(()),
        ),
    ]
    return st.lists(st.one_of(calls[0], calls[1], calls[1], calls[1], *calls), max_size=24)


class Pair:
    """A ledger and its model, taking the same steps; `at_store` is called before each of the ledger's stores."""

    def __init__(self, memory: bytearray, at_store: Callable[[], None] | None = None) -> None:
        self.memory = memory
        self.model = Model()
        self.at_store = at_store
        self.ledger = Ledger(memoryview(memory), at_store)

    def leave_room(self, cells: int) -> None:
        """Fill the active half with events that change nothing, until only so many cells are left."""
        while module.HALF_CELLS - published(self.memory)[1] > cells:
            self.ledger.failed(99)

    def take(self, step: Step) -> None:
        """One step of both; they return the same, or refuse alike."""
        name, arguments = step
        if name == "reopen":
            self.ledger = Ledger(memoryview(self.memory), self.at_store)
            self.model.reopen()
        else:
            assert outcome(self.ledger, name, arguments) == outcome(self.model, name, arguments)

    def agree(self) -> bool:
        """Whether the living ledger says what the model says."""
        ledger, model = self.ledger, self.model
        return members(ledger.doubts()) == model.doubts() and all(
            members(ledger.lost(one)) == model.gone[one] and ledger.unflushed_of(one) == model.unflushed_of(one)
            for one in TRANSFERS
        )


def outcome(owner: Ledger | Model, name: str, arguments: tuple[object, ...]) -> object:
    try:
        return getattr(owner, name)(*arguments)
    except (LedgerFull, LedgerMisused) as error:
        return type(error)


def published(memory: bytearray) -> tuple[int, int]:
    """The active half, and how many of its cells count."""
    return divmod(int.from_bytes(memory[8:16], sys.byteorder), 1 << 32)


def scribbled(death: bytes | bytearray) -> bytearray:
    """A copy in which every cell that is not published holds noise: a death may leave anything there."""
    memory = bytearray(death)
    half, cells = published(memory)
    bounds = [module.HEADER_BYTES + number * module.HALF_CELLS * module.CELL.size for number in range(3)]
    used = bounds[half] + cells * module.CELL.size
    for start, end in ((used, bounds[half + 1]), (bounds[1 - half], bounds[2 - half])):
        memory[start:end] = b"\xff" * (end - start)
    return memory


def is_begun(memory: bytearray) -> dict[int, set[int]]:
    """What a dead worker had begun, by tag, as the supervisor reads it: Model.open."""
    return {tag: set(range(at, at + length)) for at, length, tag in begun(memoryview(memory))}


def says(memory: bytearray) -> list[object]:
    """All that a dead worker's memory tells a successor, which loses its server."""
    ledger = Ledger(memoryview(bytearray(memory)))
    found: list[object] = [members(ledger.doubts())]
    found.append([(ledger.unflushed_of(one), members(ledger.lost(one))) for one in TRANSFERS])
    found.append(ledger.unflushed())
    found.append(ledger.server((9, 1)))
    ledger.server_lost()
    found.append([members(ledger.lost(one)) for one in TRANSFERS])
    return found


def should_say(model: Model) -> list[object]:
    """The same of a model that dies now."""
    model.reopen()
    found: list[object] = [model.doubts()]
    found.append([(model.unflushed_of(one), set(model.gone[one])) for one in TRANSFERS])
    found.append(any(map(model.unflushed_of, TRANSFERS)))
    found.append(model.server((9, 1)))
    model.server_lost()
    found.append([model.gone[one] for one in TRANSFERS])
    return found
