"""What the supervisor and a front end say to each other, over a channel (workers/lane/channel.py).

A front end is started as `python -m mover.front --control-fd N`; the first message it gets is Begin.
"""

from __future__ import annotations

import msgspec

from config.export import Export
from config.settings import FrontSettings, LogSettings

VERSION = 1


class Ticket(msgspec.Struct, frozen=True):
    """The capability that the control side installed.

    `version` is a number that no other ticket of this supervisor ever has: installing an id again makes a
    new version, and requests in flight go on with the one they began with. It is also the name under which
    the ledger keeps the ticket's ranges (its transfer).
    """

    id: str
    version: int
    export: Export
    write: bool = True
    sparse: bool = False
    filename: str | None = None


class Begin(msgspec.Struct, tag=True, frozen=True):
    """First message to a front end; descriptors: the listening sockets, TCP first, then Unix, as the flags say."""

    version: int
    front_end: int
    settings: FrontSettings
    tcp: bool
    unix_socket: str | None
    log: LogSettings = LogSettings()


class Tickets(msgspec.Struct, tag=True, frozen=True):
    """A change of the tickets. Changes are numbered; answer with TicketsApplied when it is in force."""

    number: int
    installed: list[Ticket] = []
    removed: list[str] = []


class LaneSocket(msgspec.Struct, tag=True, frozen=True):
    """Attach lane `lane` now; one descriptor: this front end's end of the lane's socket.

    Sent for every new lane and again, with a higher generation, whenever its worker was replaced: what was
    not confirmed is then submitted again. It is sent only after the predecessor's connections were fenced.
    """

    lane: int
    generation: int


class LaneRefused(msgspec.Struct, tag=True, frozen=True):
    """The lane is given up: its jobs fail with this reason."""

    lane: int
    reason: str
    retry_after_s: float | None = None


class WorkersAnswer(msgspec.Struct, tag=True, frozen=True):
    """The answer to AskWorkers: the JSON body of `GET /workers`, in pieces; `more` says that one follows."""

    question: int
    body: bytes
    more: bool = False


class Drain(msgspec.Struct, tag=True, frozen=True):
    """Stop accepting, finish what is in flight within the deadline, exit."""

    deadline_s: float = 30.0


class Ping(msgspec.Struct, tag=True, frozen=True):
    """Are you there? Answer with Pong."""


ToFrontEnd = Ping | Begin | Tickets | LaneSocket | LaneRefused | WorkersAnswer | Drain


class FrontEndHello(msgspec.Struct, tag=True, frozen=True):
    """First message of a front end."""

    version: int
    pid: int


class FrontEndReady(msgspec.Struct, tag=True, frozen=True):
    """Its listeners answer, and the tickets pushed so far are in force."""


class TicketsApplied(msgspec.Struct, tag=True, frozen=True):
    """Every change up to `number` is in force here."""

    number: int


class OpenLane(msgspec.Struct, tag=True, frozen=True):
    """I need a lane to the worker of `export`; `lane` is a number of my own choosing, never used before."""

    lane: int
    export: Export
    arena_bytes: int


class CloseLane(msgspec.Struct, tag=True, frozen=True):
    """The lane is closed; do not attach it again."""

    lane: int


class AskWorkers(msgspec.Struct, tag=True, frozen=True):
    """Please send WorkersAnswer."""

    question: int


class Pong(msgspec.Struct, tag=True, frozen=True):
    """I am here."""


FromFrontEnd = Pong | FrontEndHello | FrontEndReady | TicketsApplied | OpenLane | CloseLane | AskWorkers
