"""A ticket of the registry: its states, when it expires, what was moved by it. Rules, no I/O.

install ──► IN_FORCE ──expire──► EXPIRED ──extend──► IN_FORCE
               │                    │
               └──────cancel────────┴──► CANCELED ──► forgotten when nothing of it is under way
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from math import inf

from mover.control.store import Kept
from mover.serve.messages import TicketUse
from workers.image.range_set import RangeSet

# More runs of one ticket than these are joined over the smallest gaps between them.
RUNS_MOST = 1024


class State(Enum):
    """What a ticket is good for."""

    IN_FORCE = auto()
    EXPIRED = auto()
    CANCELED = auto()


class Event(Enum):
    """What changes that."""

    EXPIRE = auto()
    EXTEND = auto()
    CANCEL = auto()


STATES: dict[tuple[State, Event], State] = {
    (State.IN_FORCE, Event.EXPIRE): State.EXPIRED,
    (State.IN_FORCE, Event.EXTEND): State.IN_FORCE,
    (State.IN_FORCE, Event.CANCEL): State.CANCELED,
    (State.EXPIRED, Event.EXPIRE): State.EXPIRED,
    (State.EXPIRED, Event.EXTEND): State.IN_FORCE,
    (State.EXPIRED, Event.CANCEL): State.CANCELED,
    (State.CANCELED, Event.EXPIRE): State.CANCELED,
    (State.CANCELED, Event.EXTEND): State.CANCELED,
    (State.CANCELED, Event.CANCEL): State.CANCELED,
}


@dataclass(eq=False)
class Entry:
    """A ticket of the registry; times are the loop's."""

    number: int
    kept: Kept
    state: State
    expires_s: float
    used_s: float
    moved: RangeSet = field(default_factory=RangeSet)
    # What was used before this has no say in when it expires: a client has said so since.
    told_s: float = -inf
    # Bytes of `moved` that are there only because gaps were filled.
    filled_bytes: int = 0

    @property
    def moved_bytes(self) -> int:
        """How many bytes were read or written, each counted once."""
        return _sum(self.moved) - self.filled_bytes

    def note(self, use: TicketUse) -> None:
        """These ranges were moved."""
        for offset, length in use.moved:
            self.moved.add(offset, length)
        if len(self.moved) > RUNS_MOST:
            before = _sum(self.moved)
            self.moved.thin(RUNS_MOST)
            self.filled_bytes += _sum(self.moved) - before

    def renew(self, used_s: float) -> None:
        """It was used then."""
        self.used_s = max(self.used_s, used_s)
        if used_s > self.told_s:
            self.expires_s = max(self.expires_s, self.used_s + self.kept.timeout_s)

    def extend(self, now_s: float, timeout_s: int) -> None:
        """It expires in so many seconds, sooner or later than it would have, if it is not used."""
        self.told_s = now_s
        self.expires_s = now_s + timeout_s


@dataclass(frozen=True)
class Info:
    """A ticket as it is now; it expires in `left_s` seconds if it is not used."""

    kept: Kept
    state: State
    left_s: float
    idle_s: float
    requests: int
    connections: int
    moved_bytes: int


def _sum(ranges: RangeSet) -> int:
    return sum(length for _, length in ranges)
