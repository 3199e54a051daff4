"""What the supervisor and a front end say to each other, over a channel (workers/lane/channel.py).

A front end is started as `python -m mover.front --control-fd N`; the first message it gets is Begin.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from config.export import Export
from config.settings import (
    AllowSettings,
    FrontSettings,
    LibrarySettings,
    LimitSettings,
    LogSettings,
    QosSettings,
    TlsSettings,
)
from config.store_settings import Store

VERSION = 10

# Which side's contract a ticket speaks; mover/front/dialect.py says what that changes.
DialectName = Literal["imageio", "cloudstack"]


class Token(msgspec.Struct, frozen=True):
    """A bearer token that nobody can read back: SHA-256 of the salt and the token."""

    salt: bytes
    digest: bytes


class Ticket(msgspec.Struct, frozen=True):
    """The capability that the control side installed.

    `version` is a number that no other ticket of this supervisor ever has: installing an id again makes a
    new version, and requests in flight go on with the one they began with. `transfer` is the name under which the
    ledger keeps the ticket's ranges: no other ticket ever has it, and a ticket keeps it when the service restarts.
    `size_bytes` bounds what a client may touch of the image. `dirty` tickets report the one bitmap that the export has.
    A client that is idle for `inactivity_s` is cut off. `measured` tickets have their bytes counted.

    `subject` is that of the client certificate which alone may use it (mover/front/subjects.py has the form). `bytes_s`
    and `requests_most` are limits of its own, 0 for none; None leaves them to the settings.
    """

    id: str
    version: int
    export: Export
    write: bool = True
    sparse: bool = False
    filename: str | None = None
    dialect: DialectName = "imageio"
    transfer: int = 0
    read: bool = True
    size_bytes: int | None = None
    dirty: bool = False
    inactivity_s: float | None = None
    token: Token | None = None
    measured: bool = False
    subject: str | None = None
    bytes_s: int | None = None
    requests_most: int | None = None


class Begin(msgspec.Struct, tag=True, frozen=True):
    """First message to a front end; descriptors: the listening sockets, TCP first, then Unix, as the flags say; the
    memfd whose locks are the seats of all front ends and whose bytes are the rates (mover/front/seats.py), that of all
    connections (mover/front/crowd.py), and that of its tally (mover/front/counts.py); then, if the TCP listener speaks
    TLS, those of `Certificates`.

    `ask` says that an id without a ticket may have one for the asking (AskTicket).
    """

    version: int
    front_end: int
    settings: FrontSettings
    tcp: bool
    unix_socket: str | None
    log: LogSettings = LogSettings()
    ask: bool = False
    limits: LimitSettings = LimitSettings()
    qos: QosSettings = QosSettings()
    metrics_on_tcp: bool = False
    tls: TlsSettings = TlsSettings()
    library: LibrarySettings = LibrarySettings(enabled=False)
    state_dir: str = ""
    stores: list[Store] = []
    allow: AllowSettings = AllowSettings()


class NewCertificates(msgspec.Struct, tag=True, frozen=True):
    """Speak TLS with these on connections that are accepted from now on; descriptors: those of `Certificates`."""

    tls: TlsSettings


class Retune(msgspec.Struct, tag=True, frozen=True):
    """Other settings are in force from now on."""

    settings: FrontSettings
    limits: LimitSettings
    log: LogSettings
    qos: QosSettings
    allow: AllowSettings


class Tickets(msgspec.Struct, tag=True, frozen=True):
    """A change of the tickets. Changes are numbered; answer with TicketsApplied when it is in force.

    A ticket that it removes or replaces admits no request any more; TicketReleased follows for each of them, as soon
    as its last request has ended. With `cancel`, all requests under the removed ids are ended now.
    """

    number: int
    installed: list[Ticket] = []
    removed: list[str] = []
    cancel: bool = False


class AskUses(msgspec.Struct, tag=True, frozen=True):
    """Please send TicketsUsed of this question, with the use of these versions."""

    question: int
    versions: list[int]


class TicketAnswer(msgspec.Struct, tag=True, frozen=True):
    """The answer to AskTicket: if there is a ticket of this id, the Tickets message before this one had it."""

    id: str


class LaneSocket(msgspec.Struct, tag=True, frozen=True):
    """Attach lane `lane` now; one descriptor: this front end's end of the lane's socket.

    Sent for every new lane and again, with a higher generation, whenever its worker was replaced: what was
    not confirmed is then submitted again. It is sent only after the predecessor's connections were fenced.
    """

    lane: int
    generation: int


class GiveBack(msgspec.Struct, tag=True, frozen=True):
    """Another lane needs so much memory: close lanes that no request uses."""

    arena_bytes: int


class LaneRefused(msgspec.Struct, tag=True, frozen=True):
    """The lane is given up: its jobs fail with this reason."""

    lane: int
    reason: str
    retry_after_s: float | None = None


# What a front end may ask of the whole house: a body to answer a client with, or, for `ready`, what is not ready.
About = Literal["workers", "metrics", "ready", "status"]


class Answer(msgspec.Struct, tag=True, frozen=True):
    """The answer to Ask, in pieces; `more` says that one follows."""

    question: int
    body: bytes
    more: bool = False


class AskActivity(msgspec.Struct, tag=True, frozen=True):
    """Please send Activity."""

    question: int


class Drain(msgspec.Struct, tag=True, frozen=True):
    """Stop accepting, finish what is in flight within the deadline, exit."""

    deadline_s: float = 30.0


class Ping(msgspec.Struct, tag=True, frozen=True):
    """Are you there? Answer with Pong."""


ToFrontEnd = (
    Ping
    | Begin
    | Retune
    | NewCertificates
    | Tickets
    | AskUses
    | TicketAnswer
    | LaneSocket
    | LaneRefused
    | GiveBack
    | Answer
    | AskActivity
    | Drain
)


class FrontEndHello(msgspec.Struct, tag=True, frozen=True):
    """First message of a front end."""

    version: int
    pid: int


class FrontEndReady(msgspec.Struct, tag=True, frozen=True):
    """Its listeners answer, and the tickets pushed so far are in force."""


class TicketsApplied(msgspec.Struct, tag=True, frozen=True):
    """Every change up to `number` is in force here."""

    number: int


class TicketReleased(msgspec.Struct, tag=True, frozen=True):
    """The ticket of this version was removed or replaced, and no request uses it any more."""

    version: int


class TicketUse(msgspec.Struct, frozen=True):
    """How a ticket is used here: its requests and connections now, and how long ago the last request ended.

    `moved` are ranges (offset, length) in bytes that were read or written since the last time they were told; of
    tickets that are not `measured` there are none.
    """

    version: int
    requests: int
    connections: int
    idle_s: float = 0.0
    moved: list[tuple[int, int]] = []


class TicketsUsed(msgspec.Struct, tag=True, frozen=True):
    """The use of tickets that requests use now, or have used since the last such message.

    Sent about every second, and not while no ticket is used; and as the answer to AskUses, then with its number, and
    with the versions that are known here. `more` says that another message of the same answer follows.
    """

    uses: list[TicketUse]
    question: int = 0
    more: bool = False


class TicketFirstUsed(msgspec.Struct, tag=True, frozen=True):
    """The first request with the ticket of this version has come to this front end, from `client`."""

    version: int
    client: str


class AskTicket(msgspec.Struct, tag=True, frozen=True):
    """A client wants this id, which has no ticket. Please look, push it if there is one, and send TicketAnswer."""

    id: str


class Grant(msgspec.Struct, tag=True, frozen=True):
    """A client of the library may use this image: put a ticket in force, which expires when it is not used for so long.

    The answer is Answer, as to the other two: a JSON object of Granted.
    """

    question: int
    id: str
    export: Export
    write: bool
    size_bytes: int
    timeout_s: int
    inactivity_s: int | None = None
    filename: str | None = None


class Revoke(msgspec.Struct, tag=True, frozen=True):
    """Take a ticket of Grant out of force, and answer when nothing of it is under way any more."""

    question: int
    id: str


class Inquire(msgspec.Struct, tag=True, frozen=True):
    """How are these tickets of Grant used, or all of them?"""

    question: int
    ids: list[str] | None


class GrantUse(msgspec.Struct, frozen=True):
    """A ticket that is there: in how many seconds it expires if it is not used, what uses it, and what it has moved."""

    id: str
    in_force: bool
    left_s: float
    idle_s: float
    requests: int
    moved_bytes: int


class Granted(msgspec.Struct, frozen=True):
    """The answer: why it could not be done, for the client; and of the tickets asked for, those that are there."""

    error: str | None = None
    uses: list[GrantUse] = []


class OpenLane(msgspec.Struct, tag=True, frozen=True):
    """I need a lane to the worker of `export`; `lane` is a number of my own choosing, never used before."""

    lane: int
    export: Export
    arena_bytes: int


class CloseLane(msgspec.Struct, tag=True, frozen=True):
    """The lane is closed; do not attach it again."""

    lane: int


class Ask(msgspec.Struct, tag=True, frozen=True):
    """Please send Answer."""

    question: int
    about: About


class TransferUse(msgspec.Struct, frozen=True):
    """What one transfer's requests have come to at one front end: those in flight, those that ended, bytes."""

    transfer: int
    in_flight: int
    requests: int
    bytes_in: int
    bytes_out: int


class Activity(msgspec.Struct, tag=True, frozen=True):
    """The answer to AskActivity: what is under way here now.

    `connections` of clients, `in_flight` requests that use an image, `waiting` those in line for a seat; the slots of
    all lanes, and how many of them are in use.
    """

    question: int
    connections: int
    in_flight: int
    waiting: int
    lanes: int
    slots: int
    slots_used: int
    uses: list[TransferUse] = []


class Pong(msgspec.Struct, tag=True, frozen=True):
    """I am here."""


FromFrontEnd = (
    Pong
    | FrontEndHello
    | FrontEndReady
    | TicketsApplied
    | TicketReleased
    | TicketsUsed
    | TicketFirstUsed
    | AskTicket
    | Grant
    | Revoke
    | Inquire
    | OpenLane
    | CloseLane
    | Ask
    | Activity
)
