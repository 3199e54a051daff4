"""Requests whose clients do not move: they do not count where slots are shared out, and hold none that others need."""

from __future__ import annotations

import time
from typing import Protocol

from workers.lane.slots import Holder, Slots

# A client that has neither taken nor sent anything for so long has stalled.
STALLED_S = 0.1


class Guest(Protocol):
    """A request whose client may stall."""

    @property
    def holder(self) -> Holder:
        """It, as the slots know it."""

    @property
    def waits_since_s(self) -> float:
        """When its client moved last, by `time.monotonic`; infinity while it is not its client that it waits for."""

    def surrender(self) -> None:
        """Give back all slots; again and again, if it is asked for."""


class Stalls:
    """The guests of one lane."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._guests: set[Guest] = set()

    def __len__(self) -> int:
        return len(self._guests)

    def watch(self, guest: Guest) -> None:
        """Look after this one."""
        self._guests.add(guest)

    def unwatch(self, guest: Guest) -> None:
        """No more: it counts again."""
        self._guests.discard(guest)
        self._slots.wake(guest.holder)

    def look(self) -> None:
        """See who has stalled, and take their slots if others are in need."""
        before = time.monotonic() - STALLED_S
        stalled = [guest for guest in self._guests if guest.waits_since_s <= before]
        for guest in self._guests.difference(stalled):
            self._slots.wake(guest.holder)
        for guest in stalled:
            self._slots.rest(guest.holder)
        if stalled and self._slots.in_need():
            for guest in stalled:
                guest.surrender()
