"""The brute-force model: for each byte of the disk, every write that the server applied to it, in order.

    history of a byte     initial  W1  W2 │ W3  W4        a crash of the server takes what is right of the line,
                                 durable ─┘               a flush moves the line to the last answered one

It is the disk of the simulated server and the judge of what clients are told at once. Reads, acknowledgements and
flushes are compared with it; every difference is a Violation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from workers.image.range_set import Range


class Violation(AssertionError):
    """Something that Mover promises did not hold."""


@dataclass(eq=False)
class Write:
    """One write of a client: all its bytes have `value` (0 for zeroes, else unique).

    Times are steps of the simulation, None until they have come. `published`: a completion that says OK stands in
    the ring of a living front end. `ended`: the client was told, or has left.
    """

    name: str
    transfer: int
    offset: int
    length: int
    value: int
    began: int
    published: int | None = None
    ended: int | None = None
    acknowledged: bool = False
    applied: set[int] = field(default_factory=set)
    told: set[int] = field(default_factory=set)

    def bytes(self) -> range:
        return range(self.offset, self.offset + self.length)


@dataclass(eq=False)
class Applied:
    """One application of a write to one byte; `write` is None for the byte's first value.

    It is not the write's own if a neighbour's block brought it back, read before a crash that took it.
    """

    write: Write | None
    value: int
    time: int
    answered: bool
    own: bool


class Truth:
    """The disk and what was said of it; `now` is set by the simulation."""

    def __init__(self, size: int) -> None:
        self.now = 0
        self.writes: list[Write] = []
        self._history = [[Applied(None, 0, 0, True, True)] for _ in range(size)]
        self._durable = [0] * size
        # Every value that each byte had, with the step from which on: what a read may return.
        self._timeline = [[(0, 0)] for _ in range(size)]
        # Writes that a crash took from a byte which nobody has written since, and when.
        self._taken: list[dict[Write, int]] = [{} for _ in range(size)]
        self._excused = 0
        self._told: dict[int, tuple[int, int]] = {}

    # -- what the server does --------------------------------------------------------------------------------

    def content(self, offset: int, length: int) -> bytes:
        """The bytes as the server reads them now."""
        return bytes(history[-1].value for history in self._history[offset : offset + length])

    def apply(self, write: Write | None, offset: int, data: bytes) -> list[Applied]:
        """The server writes `data` for the job of `write`, which may bring along neighbours in its blocks."""
        done = []
        for at, value in enumerate(data, start=offset):
            own = write is not None and at in write.bytes()
            if own and write is not None and value != write.value:
                raise Violation(f"byte {at}: {write.name} wrote {value}, which is another's: its slot was taken away")
            if own or value != self._history[at][-1].value:
                done.append(self._apply(write if own else self._who(at, value), at, value, own))
        return done

    def _who(self, at: int, value: int) -> Write | None:
        """Whose value a block's neighbour brings back; the newest if there are several (of zeroes)."""
        writes = (one for one in self.writes if one.value == value and at in one.applied)
        return max(writes, key=lambda one: one.began, default=None)

    def _apply(self, write: Write | None, at: int, value: int, own: bool) -> Applied:
        self._forbid_stale(write, at)
        applied = Applied(write, value, self.now, False, own)
        self._history[at].append(applied)
        self._timeline[at].append((self.now, value))
        if own:
            self._taken[at].clear()
        if write is not None:
            write.applied.add(at)
        return applied

    def _forbid_stale(self, write: Write | None, at: int) -> None:
        for later in reversed(self._history[at]):
            if later.write is write:
                return
            if later.write is not None and _is_over(write, later):
                name = write.name if write else "the first value"
                raise Violation(f"byte {at}: {name} was over, and landed on {later.write.name} again")

    def flushed(self) -> None:
        """The server makes durable what it has answered; the rest may or may not be, so it is not."""
        for at, history in enumerate(self._history):
            answered = max(index for index, applied in enumerate(history) if applied.answered)
            self._durable[at] = max(self._durable[at], answered)

    def crash(self, keeps_cache: bool) -> None:
        """The server dies, and its cache with it unless the host kept that."""
        self.excuse()
        for at, history in enumerate(self._history):
            if keeps_cache:
                continue
            taken = [applied.write for applied in history[self._durable[at] + 1 :] if applied.write is not None]
            del history[self._durable[at] + 1 :]
            kept = {applied.write for applied in history}
            self._taken[at].update((write, self.now) for write in taken if write not in kept)
            self._timeline[at].append((self.now, history[-1].value))

    def excuse(self) -> None:
        """From now on a flush may say that something was lost."""
        self._excused = self.now

    # -- what clients see ------------------------------------------------------------------------------------

    def begin(self, name: str, transfer: int, offset: int, length: int, value: int) -> Write:
        """A client sends a write."""
        write = Write(name, transfer, offset, length, value, self.now)
        self.writes.append(write)
        return write

    def acknowledge(self, write: Write) -> None:
        """The client was told that the write is done."""
        write.ended, write.acknowledged = self.now, True
        missing = [at for at in write.bytes() if at not in write.applied]
        if missing:
            raise Violation(f"{write.name} was acknowledged, bytes {missing} never reached the server")

    def leave(self, write: Write) -> None:
        """The client has left, or was told of a failure: it may try again, and what it wrote must not come later."""
        write.ended = self.now

    def read(self, began: int, offset: int, data: bytes) -> None:
        """A read that began at step `began` has returned `data`."""
        for at, value in enumerate(data, start=offset):
            values = self._values_since(at, began)
            if value not in values:
                raise Violation(f"byte {at}: read {value}, but since step {began} it was only {sorted(values)}")

    def _values_since(self, at: int, began: int) -> set[int]:
        timeline = self._timeline[at]
        first = max(index for index, (time, _) in enumerate(timeline) if time < began or index == 0)
        return {value for _, value in timeline[first:]}

    def flush_answered(self, transfer: int, began: int) -> None:
        """A flush that began at step `began` was answered OK."""
        for write in self._acknowledged_before(began):
            for at in write.bytes():
                self._expect_safe(write, at, transfer)

    def _expect_safe(self, write: Write, at: int, transfer: int) -> None:
        if write in self._taken[at]:
            if write.transfer == transfer and at not in write.told:
                raise Violation(f"byte {at}: {write.name} is lost, its transfer {transfer} flushed and was not told")
            return
        where = [index for index, applied in enumerate(self._history[at]) if applied.write is write and applied.own]
        if where and min(where) > self._durable[at]:
            raise Violation(f"byte {at}: {write.name} was acknowledged, flushed, and is not durable")

    def flush_failed(self, transfer: int, began: int, known: int, lost: Iterable[Range]) -> None:
        """A flush that began at step `began` was answered with the ranges that were lost at step `known`."""
        named = {at for offset, length in lost for at in range(offset, offset + length)}
        asked, told = self._told.get(transfer, (0, 0))
        if self._excused < asked and began > told:
            raise Violation(f"transfer {transfer} is told again that bytes are lost, and no server was")
        for write in self._acknowledged_before(began):
            taken = {at for at in write.bytes() if write in self._taken[at]} - write.told
            if write.transfer == transfer and not taken <= named:
                raise Violation(f"{write.name}: {sorted(taken - named)} are lost, too, and not named")
        for write in self.writes:
            if write.transfer == transfer:
                write.told.update(at for at in named.intersection(write.bytes()) if self._was_named(write, at, known))

    def _was_named(self, write: Write, at: int, known: int) -> bool:
        """Whether the ledger at step `known` meant this write. It may be under way still: a part of it was lost."""
        published = write.published is not None and write.published < known
        return published or self._taken[at].get(write, known) < known

    def told(self, transfer: int, asked: int) -> None:
        """The transfer's next flush must succeed, unless a server is lost after step `asked`."""
        self._told[transfer] = asked, self.now

    def _acknowledged_before(self, time: int) -> list[Write]:
        return [write for write in self.writes if write.acknowledged and write.ended is not None and write.ended < time]


def _is_over(write: Write | None, later: Applied) -> bool:
    """Whether `write` was over when `later` was applied, so that it may not be applied once more.

    A write that nobody has confirmed may land twice, once for each worker; one that was published may not.
    A write whose client has left was over for those that began afterwards.
    """
    if write is None:
        return True
    if write.published is not None and later.time > write.published:
        return True
    assert later.write is not None
    return write.ended is not None and later.write.began > write.ended
