"""A lane's books: every job from its submission until its completion was read, over any number of workers.

    enter ──► unsent ──push──► with the worker ──complete──► out of the books
                ▲                    │
                └────── reopen ──────┘      what the predecessor has not confirmed, in the order of submission

The completions that a dead worker had published are read to the end before `reopen`: what is then still here was
never confirmed to anybody. A job that nobody waits for any more is not submitted again.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Generic, TypeVar

from workers.lane.protocol import Completion, Flag, Job, Kind
from workers.lane.slots import Slots


class Entry:
    """One job in the books; the shell adds who waits for it."""

    __slots__ = ("abandoned", "job")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.abandoned = False


EntryT = TypeVar("EntryT", bound=Entry)

Push = Callable[[Job], bool]
"""Publishes a job to the worker of the day; False when there is none, or no room."""


class NeverAsked(Exception):
    """A completion of a job that is not in the books, or of more than it asked: the worker's mistake."""

    def __init__(self, completion: Completion) -> None:
        super().__init__(f"completion of job {completion.number} that was not asked for")
        self.completion = completion


class Books(Generic[EntryT]):
    """The jobs of one lane. At most `most` are with the worker at once, the cells of its ring, so that every
    completion finds one. (Slots do not bound them: 300 flushes at once have none, and may all complete at once.)
    """

    def __init__(self, slots: Slots, most: int) -> None:
        self._slots = slots
        self._most = most
        self._entries: dict[int, EntryT] = {}
        self._unsent: list[EntryT] = []
        self._numbers = count(1)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, entry: EntryT) -> bool:
        return entry.job.number in self._entries

    def entries(self) -> list[EntryT]:
        """All of them, in the order of submission."""
        return list(self._entries.values())

    def job(
        self,
        kind: Kind,
        offset: int = 0,
        length: int = 0,
        slot: int = -1,
        transfer: int = 0,
        flags: int = 0,
        context: int = 0,
    ) -> Job:
        """A job with the next number; `enter` submits it."""
        return Job(next(self._numbers), kind, offset, length, slot, transfer, flags, context)

    def enter(self, entry: EntryT, push: Push) -> None:
        """Submit a job: its slot, if any, is the worker's from now on."""
        if entry.job.slot >= 0:
            self._slots.submit(entry.job.slot)
        self._entries[entry.job.number] = entry
        if self._unsent or len(self._entries) > self._most or not push(entry.job):
            self._unsent.append(entry)

    def abandon(self, entry: EntryT) -> None:
        """Nobody waits for this job any more; its slot comes back when no worker can have it.

        A write that no worker has seen must not come later, over what its client sends next by another lane.
        """
        entry.abandoned = True
        if entry.job.slot >= 0:
            self._slots.abandon(entry.job.slot)
        if entry in self._unsent:
            self._unsent.remove(entry)
            self._leave(entry)

    def complete(self, completion: Completion) -> EntryT:
        """The worker's answer: the job leaves the books. Raises NeverAsked, and changes nothing."""
        entry = self._entries.get(completion.number)
        if entry is None or completion.covered > entry.job.length or entry in self._unsent:
            raise NeverAsked(completion)
        self._leave(entry)
        return entry

    def _leave(self, entry: EntryT) -> None:
        del self._entries[entry.job.number]
        if entry.job.slot >= 0:
            self._slots.complete(entry.job.slot)

    def reopen(self, push: Push) -> int:
        """Another worker is there, and its predecessor dead and fenced: submit again what nobody has confirmed.

        How many of them the predecessor had seen is returned.

        Slots in quarantine come back here and not before: a job that is abandoned while there is no worker, but was
        sent to the one before, goes into quarantine, too. What the predecessor had seen is marked AGAIN.
        """
        for entry in self._entries.values():
            if entry not in self._unsent:
                entry.job.flags |= Flag.AGAIN
        abandoned = [entry.job.slot for entry in self._entries.values() if entry.abandoned and entry.job.slot >= 0]
        self._entries = {number: entry for number, entry in self._entries.items() if not entry.abandoned}
        again = sum(entry not in self._unsent for entry in self._entries.values())
        self._slots.worker_gone(abandoned)  # of this lane's worker only: another lane may have the same slots
        self._unsent = self.entries()
        self.push_unsent(push)
        return again

    def push_unsent(self, push: Push) -> None:
        """Submit what has found no room before, as far as there is room now."""
        sent, room = 0, self._most - (len(self._entries) - len(self._unsent))
        while sent < min(room, len(self._unsent)) and push(self._unsent[sent].job):
            sent += 1
        del self._unsent[:sent]
