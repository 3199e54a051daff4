"""What a ledger knows, and what each of its events changes. Rules only; `ledger.py` keeps the events.

A written range of a transfer moves along one line, and a lost server takes it off:

    written ──► unflushed ── flush_started ──► flushing ── flush_done ──► safe, forgotten
                    ▲ │                         │   │
                    │ │                         │   └── server_lost ──┐
                    │ └──────────── server_lost │ ────────────────────┤
                    └──────────── flush_failed ─┘                     ▼
                                                                    lost ── told, or written again ──► forgotten
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from enum import IntEnum

from workers.image.range_set import Range, RangeSet

# (kind, transfer, tag, offset, length); what an event does not use is 0.
Event = tuple[int, int, int, int, int]


class Kind(IntEnum):
    """The events; the numbers are the ledger's format, and 0 is none of them (the memory begins as zeros)."""

    BEGUN = 1
    WRITTEN = 2
    FAILED = 3
    ABANDONED = 4
    ALL_ABANDONED = 5
    DOUBTS_CLEARED = 6
    FLUSH_STARTED = 7
    FLUSH_DONE = 8
    FLUSH_FAILED = 9
    # The server's identity: pid in `offset`, start time in ticks in `length`.
    SERVER = 10
    SERVER_LOST = 11
    TOLD = 12
    FORGOTTEN = 13
    # Only in the summary that a compaction writes.
    IS_DOUBT = 14
    IS_UNFLUSHED = 15
    IS_LOST = 16


WITH_RANGE = frozenset({Kind.BEGUN, Kind.WRITTEN, Kind.IS_DOUBT, Kind.IS_UNFLUSHED, Kind.IS_LOST})


class Dues:
    """What one transfer is still owed the truth about."""

    __slots__ = ("flushing", "lost", "unflushed")

    def __init__(self) -> None:
        self.unflushed = RangeSet()
        self.flushing = RangeSet()
        self.lost = RangeSet()

    def sets(self) -> tuple[RangeSet, RangeSet, RangeSet]:
        """All three, for whoever treats them alike."""
        return self.unflushed, self.flushing, self.lost

    def __bool__(self) -> bool:
        return any(map(len, self.sets()))


class LedgerState:
    """The sum of all events so far. `apply` changes it; the same events always give the same state."""

    def __init__(self) -> None:
        # Commands sent and not answered, by tag.
        self.open: dict[int, Range] = {}
        # Commands whose answer will never come, though the server may still carry them out.
        self.abandoned = RangeSet()
        self.dues: dict[int, Dues] = {}
        self.flush_runs = False
        self.server: tuple[int, int] | None = None
        self._rules: dict[int, Callable[[int, int, int, int], None]] = {
            Kind.BEGUN: self._begun,
            Kind.WRITTEN: self._written,
            Kind.FAILED: self._failed,
            Kind.ABANDONED: self._abandoned,
            Kind.ALL_ABANDONED: self._all_abandoned,
            Kind.DOUBTS_CLEARED: self._doubts_cleared,
            Kind.FLUSH_STARTED: self._flush_started,
            Kind.FLUSH_DONE: self._flush_done,
            Kind.FLUSH_FAILED: self._flush_failed,
            Kind.SERVER: self._server,
            Kind.SERVER_LOST: self._server_lost,
            Kind.TOLD: self._told,
            Kind.FORGOTTEN: self._forgotten,
            Kind.IS_DOUBT: self._is_doubt,
            Kind.IS_UNFLUSHED: self._is_unflushed,
            Kind.IS_LOST: self._is_lost,
        }

    def apply(self, event: Event) -> None:
        """Take one event in. KeyError if there is no such kind."""
        kind, transfer, tag, offset, length = event
        self._rules[kind](transfer, tag, offset, length)

    def doubts(self) -> list[Range]:
        """Ranges that the server may still write, sorted and merged."""
        ranges = RangeSet(self.open.values())
        ranges.update(self.abandoned)
        return list(ranges)

    def unflushed(self) -> bool:
        """Whether any write of any transfer is confirmed and not flushed."""
        return any(dues.unflushed or dues.flushing for dues in self.dues.values())

    def is_other_server(self, identity: tuple[int, int]) -> bool:
        """Whether this may be another process than before: an unknown one (0, 0) always may."""
        return self.server is not None and (identity != self.server or identity == (0, 0))

    def summary(self) -> Iterator[Event]:
        """The fewest events that lead from an empty state to this one."""
        if self.server is not None:
            yield Kind.SERVER, 0, 0, *self.server
        for tag, (offset, length) in self.open.items():
            yield Kind.BEGUN, 0, tag, offset, length
        for offset, length in self.abandoned:
            yield Kind.IS_DOUBT, 0, 0, offset, length
        for transfer, dues in self.dues.items():
            yield from _range_events(Kind.IS_UNFLUSHED, transfer, dues.flushing)
        if self.flush_runs:
            yield Kind.FLUSH_STARTED, 0, 0, 0, 0
        for transfer, dues in self.dues.items():
            yield from _range_events(Kind.IS_UNFLUSHED, transfer, dues.unflushed)
            yield from _range_events(Kind.IS_LOST, transfer, dues.lost)

    def thin(self, most: int) -> None:
        """Leave at most `most` ranges (but one in each set) by filling the smallest gaps.

        The ranges then name more than was written, never less: a client may be told to send too much again.
        """
        sets = [self.abandoned, *(ranges for dues in self.dues.values() for ranges in dues.sets())]
        excess = sum(map(len, sets)) - most
        if excess <= 0:
            return
        gaps = ((gap, at, number) for at, ranges in enumerate(sets) for number, gap in enumerate(ranges.gaps()))
        filled: dict[int, list[int]] = {}
        for _, at, number in heapq.nsmallest(excess, gaps):
            filled.setdefault(at, []).append(number)
        for at, numbers in filled.items():
            sets[at].fill(numbers)

    def _begun(self, transfer: int, tag: int, offset: int, length: int) -> None:
        self.open[tag] = (offset, length)

    def _written(self, transfer: int, tag: int, offset: int, length: int) -> None:
        self.open.pop(tag, None)
        dues = self.dues.get(transfer)
        if dues is None:
            dues = self.dues[transfer] = Dues()
        dues.unflushed.add(offset, length)
        if dues.lost:
            dues.lost.remove(offset, length)

    def _failed(self, transfer: int, tag: int, offset: int, length: int) -> None:
        self.open.pop(tag, None)

    def _abandoned(self, transfer: int, tag: int, offset: int, length: int) -> None:
        doubt = self.open.pop(tag, None)
        if doubt is not None:
            self.abandoned.add(*doubt)

    def _all_abandoned(self, transfer: int, tag: int, offset: int, length: int) -> None:
        for doubt in self.open.values():
            self.abandoned.add(*doubt)
        self.open.clear()

    def _doubts_cleared(self, transfer: int, tag: int, offset: int, length: int) -> None:
        self.abandoned.clear()

    def _flush_started(self, transfer: int, tag: int, offset: int, length: int) -> None:
        self.flush_runs = True
        for dues in self.dues.values():
            dues.flushing, dues.unflushed = dues.unflushed, dues.flushing

    def _flush_done(self, transfer: int, tag: int, offset: int, length: int) -> None:
        self.flush_runs = False
        for dues in self.dues.values():
            dues.flushing.clear()
        self._drop_settled()

    def _flush_failed(self, transfer: int, tag: int, offset: int, length: int) -> None:
        self.flush_runs = False
        for dues in self.dues.values():
            dues.unflushed.update(dues.flushing)
            dues.flushing.clear()

    def _server(self, transfer: int, tag: int, offset: int, length: int) -> None:
        if self.is_other_server((offset, length)):
            self._server_lost(transfer, tag, offset, length)
        self.server = (offset, length)

    def _server_lost(self, transfer: int, tag: int, offset: int, length: int) -> None:
        self.flush_runs = False
        for dues in self.dues.values():
            for ranges in (dues.unflushed, dues.flushing):
                dues.lost.update(ranges)
                ranges.clear()

    def _told(self, transfer: int, tag: int, offset: int, length: int) -> None:
        if transfer in self.dues:
            self.dues[transfer].lost.clear()
            self._drop_settled()

    def _forgotten(self, transfer: int, tag: int, offset: int, length: int) -> None:
        self.dues.pop(transfer, None)

    def _is_doubt(self, transfer: int, tag: int, offset: int, length: int) -> None:
        self.abandoned.add(offset, length)

    def _is_unflushed(self, transfer: int, tag: int, offset: int, length: int) -> None:
        self.dues.setdefault(transfer, Dues()).unflushed.add(offset, length)

    def _is_lost(self, transfer: int, tag: int, offset: int, length: int) -> None:
        self.dues.setdefault(transfer, Dues()).lost.add(offset, length)

    def _drop_settled(self) -> None:
        self.dues = {transfer: dues for transfer, dues in self.dues.items() if dues}


def _range_events(kind: Kind, transfer: int, ranges: RangeSet) -> Iterator[Event]:
    return ((kind, transfer, 0, offset, length) for offset, length in ranges)
