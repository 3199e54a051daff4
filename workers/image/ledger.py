"""The ledger of one export: which writes are in doubt, confirmed, flushed or lost, kept where no death reaches it.

The memory is a file that the supervisor opens and the worker maps: it outlives both. The worker alone writes it, and
may be killed between any two stores. So it is a log in two halves:

    word 0  FORMAT            word 1  published = half << 32 | cells      word 2  completed jobs    word 3  losses
    word 4 and 5  the boot of the host in which it was written
    ┌────────────┬──────────────────────────────┬──────────────────────────────┐
    │ header     │ half 0: cells of one event   │ half 1                       │
    └────────────┴──────────────────────────────┴──────────────────────────────┘

An event is written into the next free cell of the active half and then made to count by one aligned 8-byte store
to `published`. When the half is full, a summary of the state is written into the other one, and again a single
store to `published` makes that the log. What `published` does not cover is noise.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from workers.image.ledger_state import WITH_RANGE, Dues, Event, Kind, LedgerState
from workers.image.range_set import Range

# "mvledgr1" as a number; 0 is memory that nobody has used yet.
FORMAT = 0x6D766C6564677231
_FORMAT, _PUBLISHED, _COMPLETED, _LOSSES = range(4)

HEADER_BYTES = 64
BOOT = slice(32, 48)
HALF_CELLS = 8192
# kind, transfer, tag, offset, length; 32 bytes
CELL = struct.Struct("=III4xQQ")
LEDGER_BYTES = HEADER_BYTES + 2 * HALF_CELLS * CELL.size

# A summary must leave room in its half: at most 1 + 1024 + 4096 + 1 of 8192 cells, so that a compaction
# (about 4 ms at worst) is paid for by 3000 events.
OPEN_MOST = 1024
RANGES_MOST = 4096
# Each has up to three ranges that cannot be merged with others, and all must fit RANGES_MOST.
TRANSFERS_MOST = 1024
# NBD's offsets are 64 bits, libnbd's are signed.
END_MOST = 2**63 - 1


class LedgerBroken(Exception):
    """The memory does not hold a ledger: `what` is `value`, beyond `limit`."""

    def __init__(self, what: str, value: int, limit: int) -> None:
        super().__init__(f"ledger broken: {what} is {value}, limit {limit}")
        self.what = what
        self.value = value
        self.limit = limit


class LedgerFull(Exception):
    """More is open at once than the ledger can hold; nothing was recorded."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"ledger full: {limit} {what}")
        self.what = what
        self.limit = limit


class LedgerMisused(Exception):
    """An event that cannot follow on the earlier ones: a bug of ours; nothing was recorded."""


class Ledger:
    """The writing end, in the worker. Ranges are half-open (offset, length) in bytes; a transfer and a tag are u32.

    Every method that records something is atomic: after a death at any store, the successor finds it recorded
    or not begun. `order_trace`, if given, is called before each store, so that a simulation can kill there.
    """

    def __init__(self, buffer: memoryview, order_trace: Callable[[], None] | None = None) -> None:
        """Open `buffer` (LEDGER_BYTES, 8-byte aligned) and go on where the last writer died.

        What that one had begun is in doubt until `clear_doubts`; a flush it had started has failed.
        Raises LedgerBroken.
        """
        self._words = buffer[:HEADER_BYTES].cast("Q")
        self._buffer = buffer
        self._before_store = order_trace or _no_trace
        self._state = _read(buffer)
        self._half, self._cells = _published(self._words)
        self._store(_FORMAT, FORMAT)
        if self._state.open:
            self._append(Kind.ALL_ABANDONED)
        if self._state.flush_runs:
            self._append(Kind.FLUSH_FAILED)

    def begin(self, tag: int, offset: int, length: int) -> None:
        """A command that changes this range is about to be sent: it is in doubt until the command ends.

        Exactly one of `written`, `failed` and `abandoned` ends it. Raises LedgerFull with OPEN_MOST begun.
        """
        if tag in self._state.open:
            raise LedgerMisused(f"tag {tag} has already begun")
        if len(self._state.open) >= OPEN_MOST:
            raise LedgerFull("commands begun", OPEN_MOST)
        _check_range(offset, length)
        self._append(Kind.BEGUN, 0, tag, offset, length)

    def written(self, tag: int, transfer: int, offset: int, length: int) -> None:
        """The server confirmed the command: the range is unflushed now, and no longer lost if it was.

        Raises LedgerFull with TRANSFERS_MOST transfers: the command is still open and its job must fail.
        """
        dues = self._state.dues
        if transfer not in dues and len(dues) >= TRANSFERS_MOST:
            raise LedgerFull("transfers with unflushed or lost ranges", TRANSFERS_MOST)
        _check_range(offset, length)
        self._append(Kind.WRITTEN, transfer, tag, offset, length)

    def failed(self, tag: int) -> None:
        """The server answered with an error: the doubt ends."""
        self._append(Kind.FAILED, 0, tag)

    def abandoned(self, tag: int) -> None:
        """The connection was lost before the answer: the range stays in doubt until `clear_doubts`, the tag is free."""
        self._append(Kind.ABANDONED, 0, tag)

    def doubts(self) -> list[Range]:
        """All ranges in doubt, begun or abandoned, sorted and merged."""
        return self._state.doubts()

    def clear_doubts(self) -> None:
        """The old connections are fenced or settled: abandoned ranges are in doubt no more; begun ones are."""
        if self._state.abandoned:
            self._append(Kind.DOUBTS_CLEARED)

    def flush_started(self) -> None:
        """A flush covers everything written until now. Raises LedgerMisused while another one runs."""
        if self._state.flush_runs:
            raise LedgerMisused("a flush is running")
        self._append(Kind.FLUSH_STARTED)

    def flush_done(self) -> None:
        """What the flush covered is safe. Nothing, if the server was lost since it started."""
        if self._state.flush_runs:
            self._append(Kind.FLUSH_DONE)

    def flush_failed(self) -> None:
        """What the flush covered is unflushed again."""
        if self._state.flush_runs:
            self._append(Kind.FLUSH_FAILED)

    def server(self, identity: tuple[int, int]) -> bool:
        """Connected, with no other connection alive, to the process (pid, start time in ticks), (0, 0) if unknown.

        If it may be another one than before, all unflushed ranges are lost, in the same store, and a flush that
        runs has come to nothing; True if anything was lost. (Recorded apart, a death in between would make the
        next worker believe that nothing had happened.)
        """
        other = self._state.is_other_server(identity)
        loses = other and self._state.unflushed()
        if loses:
            self._count_loss()
        if other or identity != self._state.server:
            self._append(Kind.SERVER, 0, 0, *identity)
        return loses

    def server_lost(self) -> None:
        """The server is gone: what is unflushed, or being flushed, is lost."""
        if self._state.unflushed() or self._state.flush_runs:
            self._count_loss()
            self._append(Kind.SERVER_LOST)

    @property
    def losses(self) -> int:
        """How often anything was lost: who was told at an earlier count was not told of everything.

        It is counted before the loss is recorded. A death in between leaves it too high, and somebody is told twice.
        """
        return int(self._words[_LOSSES])

    def _count_loss(self) -> None:
        self._store(_LOSSES, self._words[_LOSSES] + 1)

    def lost(self, transfer: int) -> list[Range]:
        """What the client must be told to send again, sorted and merged."""
        return list(self._dues(transfer).lost)

    def told(self, transfer: int) -> None:
        """The client was told what is lost: the next flush is honest without it."""
        if self._dues(transfer).lost:
            self._append(Kind.TOLD, transfer)

    def owes(self, transfer: int) -> bool:
        """Whether anything of this transfer is unflushed, or lost and not told."""
        return transfer in self._state.dues

    def lose(self, transfer: int) -> None:
        """All that this transfer may ever have written is lost."""
        self._count_loss()
        self._append(Kind.IS_LOST, transfer, 0, 0, END_MOST)

    def transfers(self) -> list[int]:
        """The transfers that have unflushed or lost ranges."""
        return list(self._state.dues)

    def unflushed(self) -> bool:
        """Whether any write of any transfer is confirmed and not flushed."""
        return self._state.unflushed()

    def unflushed_of(self, transfer: int) -> bool:
        """Whether any write of this transfer is confirmed and not flushed."""
        dues = self._dues(transfer)
        return bool(dues.unflushed or dues.flushing)

    def forget(self, transfer: int) -> None:
        """The transfer's ticket is gone: there is nobody left to tell."""
        if transfer in self._state.dues:
            self._append(Kind.FORGOTTEN, transfer)

    def count_completed(self) -> None:
        """One more job was completed; `completed` reads it."""
        self._store(_COMPLETED, self._words[_COMPLETED] + 1)

    def _dues(self, transfer: int) -> Dues:
        return self._state.dues.get(transfer) or Dues()

    def _append(self, kind: int, transfer: int = 0, tag: int = 0, offset: int = 0, length: int = 0) -> None:
        if self._cells == HALF_CELLS:
            self._compact()
        event = (kind, transfer, tag, offset, length)
        self._put(self._half, self._cells, event)
        self._store(_PUBLISHED, self._half << 32 | self._cells + 1)
        self._cells += 1
        self._state.apply(event)

    def _compact(self) -> None:
        self._state.thin(RANGES_MOST)
        half, cells = 1 - self._half, 0
        for cells, event in enumerate(self._state.summary(), start=1):
            self._put(half, cells - 1, event)
        self._store(_PUBLISHED, half << 32 | cells)
        self._half, self._cells = half, cells

    def _put(self, half: int, cell: int, event: Event) -> None:
        self._before_store()
        CELL.pack_into(self._buffer, HEADER_BYTES + (half * HALF_CELLS + cell) * CELL.size, *event)

    def _store(self, word: int, value: int) -> None:
        self._before_store()
        self._words[word] = value


def begun(buffer: memoryview) -> list[tuple[int, int, int]]:
    """(offset, length, tag) of what a dead worker had begun and not ended, one by one. Raises LedgerBroken."""
    return [(offset, length, tag) for tag, (offset, length) in _read(buffer).open.items()]


def is_empty(buffer: memoryview) -> bool:
    """Whether nobody would miss it: nothing unflushed or lost, nothing in doubt. Raises LedgerBroken."""
    state = _read(buffer)
    return not (any(state.dues.values()) or state.open or state.abandoned)


def boot(buffer: memoryview) -> bytes:
    """The boot of the host in which it was written; zeros before `set_boot`."""
    return bytes(buffer[BOOT])


def set_boot(buffer: memoryview, boot: bytes) -> None:
    """It is of this boot, 16 bytes, from now on."""
    buffer[BOOT] = boot


def completed(buffer: memoryview) -> int:
    """Jobs completed on this export by all its workers so far."""
    with buffer[:HEADER_BYTES].cast("Q") as words:
        return words[_COMPLETED]


def _read(buffer: memoryview) -> LedgerState:
    _expect("size in bytes", buffer.nbytes, LEDGER_BYTES, LEDGER_BYTES)
    with buffer[:HEADER_BYTES].cast("Q") as words:
        if words[_FORMAT] or words[_PUBLISHED]:
            _expect("format", words[_FORMAT], FORMAT, FORMAT)
        half, cells = _published(words)
    state = LedgerState()
    start = HEADER_BYTES + half * HALF_CELLS * CELL.size
    for event in CELL.iter_unpack(buffer[start : start + cells * CELL.size]):
        _check_event(event)
        state.apply(event)
    return state


def _published(words: memoryview) -> tuple[int, int]:
    half, cells = divmod(words[_PUBLISHED], 1 << 32)
    _expect("active half", half, 0, 1)
    _expect("number of cells", cells, 0, HALF_CELLS)
    return half, cells


def _check_event(event: Event) -> None:
    kind, _, _, offset, length = event
    _expect("kind of a cell", kind, min(Kind), max(Kind))
    if kind in WITH_RANGE:
        _expect("length of a range", length, 1, END_MOST)
        _expect("end of a range", offset + length, 1, END_MOST)


def _check_range(offset: int, length: int) -> None:
    if length < 1 or offset < 0 or offset + length > END_MOST:
        raise LedgerMisused(f"no range: offset {offset}, length {length}")


def _expect(what: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise LedgerBroken(what, value, most)


def _no_trace() -> None:
    """Nobody watches the stores."""
