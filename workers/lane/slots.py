"""Slots: who owns each piece of the arena, and how many of them one request may hold.

    FREE ──take──► FRONT ──submit──► WORKER ──complete──► FRONT ──release──► FREE
                                       │ abandon
                                       ▼
                                   QUARANTINE ──complete, worker gone──► FREE

A slot has one owner at every moment. In WORKER and QUARANTINE libnbd may write into it at any time; what is
in quarantine nobody waits for any more, and it comes back when its command has ended or its worker is dead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import IntEnum, auto
from typing import Protocol


class Owner(IntEnum):
    """Who may touch a slot's bytes."""

    FREE = auto()
    FRONT = auto()
    WORKER = auto()
    QUARANTINE = auto()


class Move(IntEnum):
    """What happens to a slot."""

    TAKE = auto()
    SUBMIT = auto()
    COMPLETE = auto()
    ABANDON = auto()
    RELEASE = auto()
    WORKER_GONE = auto()


# IntEnums: the hash of a plain Enum is a Python call, and each small GET looks here four times.
MOVES: dict[tuple[Owner, Move], Owner] = {
    (Owner.FREE, Move.TAKE): Owner.FRONT,
    (Owner.FRONT, Move.SUBMIT): Owner.WORKER,
    (Owner.FRONT, Move.RELEASE): Owner.FREE,
    (Owner.WORKER, Move.COMPLETE): Owner.FRONT,
    (Owner.WORKER, Move.ABANDON): Owner.QUARANTINE,
    (Owner.QUARANTINE, Move.COMPLETE): Owner.FREE,
    (Owner.QUARANTINE, Move.WORKER_GONE): Owner.FREE,
}


class IllegalMove(Exception):
    """A slot was asked to move in a way the table does not know; nothing changed."""

    def __init__(self, slot: int, owner: Owner, move: Move) -> None:
        super().__init__(f"slot {slot} is {owner.name}, cannot {move.name}")
        self.slot, self.owner, self.move = slot, owner, move


class Holder:
    """A request that holds slots; `held` counts those in its hands or submitted for it.

    While it `rests`, its client having stalled, the others' shares are as if it were not there.
    """

    __slots__ = ("held", "rests")

    def __init__(self) -> None:
        self.held = 0
        self.rests = False


class Waiter(Protocol):
    """Somebody in the queue for a slot."""

    holder: Holder

    def give(self, slot: int) -> bool:
        """Hand it over; False when the waiter has gone meanwhile."""


class Slots:
    """All slots of one arena."""

    def __init__(self, count: int, most_per_request: int) -> None:
        self._owners = [Owner.FREE] * count
        self._holders: list[Holder | None] = [None] * count
        self._free = list(range(count - 1, -1, -1))
        self._most = most_per_request
        self._requests = 0
        self._missed = False
        self._waiters: deque[Waiter] = deque()
        self.used_peak = 0

    def __len__(self) -> int:
        return len(self._owners)

    @property
    def used(self) -> int:
        """Slots that are not free."""
        return len(self._owners) - len(self._free)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiters)

    @property
    def share(self) -> int:
        """How many slots one request may hold now: an equal part, at least one, at most the queue depth."""
        return max(1, min(self._most, len(self._owners) // max(1, self._requests)))

    def enter(self) -> Holder:
        """A request begins."""
        self._requests += 1
        return Holder()

    def leave(self, holder: Holder) -> None:
        """A request ends; its slots are released or abandoned by then, or come back later by themselves."""
        if not holder.rests:
            self._requests -= 1
        self._serve_waiters()

    def rest(self, holder: Holder) -> None:
        """Its client has stalled: the others' shares grow."""
        if not holder.rests:
            holder.rests = True
            self._requests -= 1
            self._serve_waiters()

    def wake(self, holder: Holder) -> None:
        """Its client moves again."""
        if holder.rests:
            holder.rests = False
            self._requests += 1

    def in_need(self) -> bool:
        """Whether anybody waits for a slot, or has found none since this was asked last."""
        missed, self._missed = self._missed, False
        return missed or bool(self._waiters)

    def take_nowait(self, holder: Holder) -> int | None:
        """A slot for `holder`, or None: at its share, none free, or others came first."""
        if not self._free or self._waiters:
            self._missed = True
            return None
        if holder.held >= self.share:
            return None
        return self._take(holder)

    def queue(self, waiter: Waiter) -> None:
        """Stand in line; `waiter.give` is called with the slot. Those who hold least are served first."""
        self._waiters.append(waiter)
        self._serve_waiters()

    def withdraw(self, waiter: Waiter) -> None:
        """Leave the line, if still in it."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)
            self._serve_waiters()

    def submit(self, slot: int) -> None:
        """The slot goes to the worker."""
        self._move(slot, Move.SUBMIT)

    def complete(self, slot: int) -> None:
        """The worker gives the slot back: to its request, or to all if that has abandoned it."""
        if self._move(slot, Move.COMPLETE) is Owner.FREE:
            self._freed(slot)

    def release(self, slot: int) -> None:
        """The request needs the slot no more."""
        self._move(slot, Move.RELEASE)
        self._freed(slot)

    def abandon(self, slot: int) -> None:
        """The request leaves while the worker has the slot."""
        self._move(slot, Move.ABANDON)
        self._let_go(slot)
        self._serve_waiters()

    def worker_gone(self, slots: Iterable[int]) -> None:
        """The worker that had these is dead and fenced: of those in quarantine nobody writes into any more."""
        for slot in slots:
            if self._owners[slot] is Owner.QUARANTINE:
                self._move(slot, Move.WORKER_GONE)
                self._freed(slot)

    def owner(self, slot: int) -> Owner:
        """Who owns `slot`."""
        return self._owners[slot]

    def _take(self, holder: Holder) -> int:
        slot = self._free.pop()
        self._move(slot, Move.TAKE)
        self._holders[slot] = holder
        holder.held += 1
        self.used_peak = max(self.used_peak, self.used)
        return slot

    def _move(self, slot: int, move: Move) -> Owner:
        owner = self._owners[slot]
        after = MOVES.get((owner, move))
        if after is None:
            raise IllegalMove(slot, owner, move)
        self._owners[slot] = after
        return after

    def _freed(self, slot: int) -> None:
        self._let_go(slot)
        self._free.append(slot)
        if self._waiters:
            self._serve_waiters()

    def _let_go(self, slot: int) -> None:
        holder = self._holders[slot]
        if holder is not None:
            holder.held -= 1
            self._holders[slot] = None

    def _serve_waiters(self) -> None:
        while self._free and self._waiters:
            waiter = min(self._waiters, key=lambda waiting: waiting.holder.held)
            if waiter.holder.held >= self.share:
                return
            self._waiters.remove(waiter)
            slot = self._take(waiter.holder)
            if not waiter.give(slot):
                self._move(slot, Move.RELEASE)
                self._let_go(slot)
                self._free.append(slot)
