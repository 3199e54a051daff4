"""What the supervisor and an image worker say to each other, over a channel (workers/lane/channel.py).

A worker is started as `python -m workers.image --control-fd N`; the first message it gets is Serve.
"""

from __future__ import annotations

import msgspec

from config.export import Export
from config.roots import Roots
from config.settings import LogSettings, WorkerSettings
from config.store_settings import FileStore, Store
from config.url_rules import UrlRules

VERSION = 5


class Serve(msgspec.Struct, tag=True, frozen=True):
    """First message to a worker; two descriptors: the memfds of the ledger (workers/image/ledger.py) and of the tally
    (workers/image/counts.py).

    `doubts` are (offset, length, tag): ranges in bytes that a predecessor's command, of the job `tag`, may still write
    until `doubts_until_s` (CLOCK_MONOTONIC): overlapping writes wait. `server_lost`: a non-local connection had
    already ended when the predecessor died, or did not end as asked, so unflushed writes may be lost. `roots` say
    where the export's paths may lead, None if Mover or its settings name the export themselves. `store` is the
    one that an export of a store names, `urls` says which URLs may be read.
    `neighbours` are all file stores, for an export of a store: images are copied from them.
    """

    version: int
    generation: int
    export: Export
    settings: WorkerSettings
    doubts: list[tuple[int, int, int]] = []
    doubts_until_s: float = 0.0
    server_lost: bool = False
    log: LogSettings = LogSettings()
    roots: Roots | None = None
    store: Store | None = None
    urls: UrlRules = UrlRules()
    neighbours: list[FileStore] = []


class Retune(msgspec.Struct, tag=True, frozen=True):
    """Other settings are in force from now on; a connection that is open keeps what it began with."""

    settings: WorkerSettings
    log: LogSettings


class Attach(msgspec.Struct, tag=True, frozen=True):
    """A front end wants a lane; one descriptor: this worker's end of the lane's socket."""

    lane: int
    generation: int
    front_end: int


class AskStatistics(msgspec.Struct, tag=True, frozen=True):
    """Please send Statistics."""

    question: int


class Forget(msgspec.Struct, tag=True, frozen=True):
    """Nobody will ask for this transfer's ranges any more, and all its requests have ended.

    Answer with Forgotten when none of its writes is under way: not before all jobs were read that stand in the rings.
    """

    transfer: int


class Leave(msgspec.Struct, tag=True, frozen=True):
    """Finish what is in flight, disconnect and exit."""


ToWorker = Serve | Retune | Attach | AskStatistics | Forget | Leave


class WorkerHello(msgspec.Struct, tag=True, frozen=True):
    """First message of a worker."""

    version: int
    generation: int
    pid: int


class Connected(msgspec.Struct, tag=True, frozen=True):
    """A new NBD connection; one descriptor: a duplicate of its socket, which the supervisor keeps for the fence.

    It is sent before the first command goes out on the connection.
    """

    connection: int


class Disconnected(msgspec.Struct, tag=True, frozen=True):
    """The worker has ended and fenced this connection itself: the duplicate can be closed."""

    connection: int


class LaneUse(msgspec.Struct, frozen=True):
    """One lane as `/workers` shows it."""

    front_end: int
    slots: int
    slots_used: int


class Statistics(msgspec.Struct, tag=True, frozen=True):
    """The answer to AskStatistics: counts since the worker began; `state` is its connection's state."""

    question: int
    state: str
    connections: int
    in_flight: int
    in_flight_peak: int
    bytes_read: int
    bytes_written: int
    reconnects: int
    replays: int
    lanes: list[LaneUse]


class Forgotten(msgspec.Struct, tag=True, frozen=True):
    """No write of this transfer is under way, and the ledger has nothing of it."""

    transfer: int


FromWorker = WorkerHello | Connected | Disconnected | Statistics | Forgotten
