"""One worker's connections to its export: opened, opened again with backoff, and given up after a deadline.

What a lost connection had in flight is sent again on the next one, in its old order, once it is fenced or has settled.
Newcomers are refused while there is no server; when the deadline has passed, every lane is.
"""

from __future__ import annotations

import errno
import logging
import mmap
import time
from collections.abc import Iterator
from typing import Protocol

from config.log import facts
from workers import server_process
from workers.image.connection import Connection, State
from workers.image.connector import FILES, Connector
from workers.image.counts import Counts
from workers.image.lanes import Lanes
from workers.image.loop import Loop, Timer
from workers.image.plan import WRITING, Command, Limits, Operation
from workers.image.schedule import Schedule
from workers.image.succession import Succession
from workers.lane.protocol import Job, Kind
from workers.lane.worker_lane import WorkerLane
from workers.messages import Connected, Disconnected, Serve

log = logging.getLogger(__name__)

BACKOFF_FIRST_S = 0.02
BACKOFF_MOST_S = 1.0
WATCH_S = 1.0
# A second connection is optional, and `qemu-nbd -e 1` lets it hang.
EXTRA_CONNECT_S = 1.0
# One read of 2 to 31 MiB raises glibc's threshold for mmap in qemu, for good; 32 MiB would be over its limit.
WARMING_BYTES = 16 * 1024 * 1024
WARMING_AFTER_BYTES = 4 * 1024 * 1024


class Host(Protocol):
    """The worker, as its connections need it."""

    leaving: bool

    def tell(self, message: Connected | Disconnected, *fds: int) -> None:
        """Tell the supervisor, if it is there."""

    def pump(self) -> None:
        """Publish what has finished, send what is ready."""


class Connections:
    """The Owner of each of them. `serve` changes with its settings; `limits` are None while there is no image."""

    def __init__(
        self,
        serve: Serve,
        loop: Loop,
        schedule: Schedule[WorkerLane | None],
        counts: Counts,
        lanes: Lanes,
        host: Host,
    ) -> None:
        self.serve = serve
        self.limits: Limits | None = None
        self.read = self.written = self.reconnects = self.replays = 0
        self._loop = loop
        self._schedule = schedule
        self._counts = counts
        self._lanes = lanes
        self._host = host
        self._connector = Connector(serve.generation, loop, self)
        self._all: list[Connection] = []
        self._introduced: set[int] = set()  # numbers of connections whose sockets the supervisor has
        self._gone_timer: Timer | None = None
        self._failures = 0
        self._warmed = False
        self._succession = Succession(schedule, local=serve.export.transport != "tcp")
        if self._succession.take_over(serve.server_lost, serve.doubts):
            loop.later(max(0.0, serve.doubts_until_s - time.monotonic()), self._succession.settled)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._all))

    # -- what they are doing ---------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """Of the first of them, for people."""
        return self._all[0].state.name.lower() if self._all else "closed"

    @property
    def ready(self) -> int:
        """How many are."""
        return sum(connection.state is State.READY for connection in self._all)

    @property
    def in_flight(self) -> int:
        """Commands that were not answered yet."""
        return sum(connection.in_flight for connection in self._all)

    @property
    def can_flush(self) -> bool:
        """Whether there is a server that does."""
        return self.ready > 0 and self.limits is not None and self.limits.facts.can_flush

    def room(self) -> Connection | None:
        """The READY connection with the fewest commands in flight, if it may have one more."""
        least, depth = None, self.serve.settings.queue_depth
        for connection in self._all:
            if connection.state is State.READY and connection.in_flight < depth:
                least, depth = connection, connection.in_flight
        return least

    # -- beginning -------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Connect, and look after commands that are not answered."""
        self._loop.later(WATCH_S, self._watch_commands)
        self.connect()

    def connect(self) -> None:
        """Open the first one, unless there is one, or about to be."""
        if not any(connection.state is not State.CLOSED for connection in self._all):
            self._open(self.serve.settings.connect_s)

    def _open(self, connect_s: float) -> None:
        connection = self._connector.new(self.serve, connect_s)
        self._all.append(connection)
        connection.open()

    def introduce(self, connection: Connection, fd: int) -> None:
        """The supervisor keeps a duplicate of every socket, for the fence after our death.

        Nothing is ever written to a view, and its server ends with us.
        """
        if self.serve.export.transport == "view":
            return
        self._introduced.add(connection.number)
        self._host.tell(Connected(connection.number), fd)

    def connected(self, connection: Connection, limits: Limits) -> None:
        """A connection is READY: the first of several, or one more."""
        if self.limits is not None and connection is not self._all[0]:
            if connection.server not in self._servers(besides=connection):
                connection.break_off("another server answers than on the other connections")
            return
        if self._gone_timer is not None:
            self._gone_timer.cancel()
            self._gone_timer = None
        self._failures = 0
        if self._succession.connected(connection.server, limits):
            log.warning("server lost with unflushed writes", extra=facts(export=self.serve.export.key))
        before, self.limits = self.limits, limits
        if before is not None and before.facts != limits.facts:
            self._gone("the image is another one now", errno.ESTALE)
            self.limits = limits
        if before is None:
            self._lanes.open(limits.facts)
        self._connect_more(limits)

    def _servers(self, besides: Connection) -> set[tuple[int, int]]:
        others = (other for other in self._all if other is not besides)
        return {other.server for other in others if other.state is State.READY}

    def _connect_more(self, limits: Limits) -> None:
        if not limits.facts.multi_conn:
            return
        while len(self._all) < self.serve.settings.connections:
            self._open(EXTRA_CONNECT_S)

    # -- commands --------------------------------------------------------------------------------------------

    def ended(self, command: Command, error: int) -> None:
        """A connection has the server's answer to a command."""
        if error and command.operation is Operation.FLUSH and self.serve.export.transport in FILES:
            # The kernel says it once: pages that it could not write are clean to it from now on.
            self._schedule.ledger.server_lost()
        if not error and command.operation is Operation.READ:
            self.read += command.length
        elif not error and command.operation in WRITING:
            self.written += command.length
        self._counts.ended(command.operation, command.length, error, time.monotonic_ns() - command.sent_ns)
        self._schedule.ended(command, error)
        if not self._warmed and self.read + self.written >= WARMING_AFTER_BYTES:
            self._warm()

    def _warm(self) -> None:
        """Make qemu's allocator keep its buffers: later reads are 2 to 3.3 times faster, writes 2.8 times."""
        self._warmed = True
        limits = self.limits
        local = bool(self._all) and self.serve.export.transport == "unix"
        if not (self.serve.settings.warm_allocator and local and limits is not None):
            return
        if not server_process.is_qemu(self._all[0].server[0]):
            return
        length = min(WARMING_BYTES, limits.size, limits.most_bytes)
        if length >= 2 * 1024 * 1024:
            self._schedule.submit(None, Job(0, Kind.READ, 0, length), memoryview(mmap.mmap(-1, length)))

    def _watch_commands(self) -> None:
        """A command unanswered for too long is taken for a lost connection."""
        self._loop.later(WATCH_S, self._watch_commands)
        patience = self.serve.settings.command_s
        for connection in self:
            if connection.waited_s > patience:
                connection.break_off(f"no answer within {patience:g} s")

    # -- the end of one --------------------------------------------------------------------------------------

    def disconnected(self, connection: Connection, why: str, commands: list[Command], fenced: bool) -> None:
        """A connection has ended: its commands are sent again on the next one, in their old order."""
        self._all.remove(connection)
        self.replays += len(commands)
        self._counts.replayed(len(commands))
        late = self._succession.disconnected(connection.server, connection.was_ready, commands, fenced)
        if late:
            self._loop.later(self.serve.settings.settle_s, lambda: self._let_go(connection, late))
        else:
            self._let_go(connection, late)
        if self._host.leaving and not self._schedule.active:
            return
        if not self.ready:
            self._retry(why)

    def _let_go(self, connection: Connection, late: list[Command]) -> None:
        """Nothing sent on this connection will land any more: what was not fenced has settled."""
        if connection.number in self._introduced:
            self._introduced.remove(connection.number)
            self._host.tell(Disconnected(connection.number))
        self._schedule.lost(late)

    @property
    def _absent(self) -> int:
        """What jobs fail with when the image is not there: no connection to a server, or no file."""
        return errno.ENOENT if self.serve.export.transport in FILES else errno.ENOTCONN

    def _retry(self, why: str) -> None:
        log.warning("no connection", extra=facts(export=self.serve.export.key, reason=why))
        if self.limits is None:
            self._lanes.refuse_newcomers(why)
        if self.serve.export.transport == "http":
            # It has been tried long enough, or is another one: who wants it asks again.
            self._gone(why, errno.ESTALE)
            return
        waiting = self._schedule.active or any(lane.resumes for lane in self._lanes)
        if not waiting and not self._lanes:
            self.limits = None
            return
        if self._gone_timer is None:
            self.reconnects += 1
            self._counts.reconnecting()
            # Not before writes in doubt have settled: their ranges are free for others when their jobs are gone.
            patience = max(self.serve.settings.reconnect_s, self.serve.settings.settle_s)
            self._gone_timer = self._loop.later(patience, lambda: self._gone(why, self._absent))
        pause = min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2 ** min(self._failures, 10))
        self._failures += 1
        self._loop.later(pause, self.connect)

    def _gone(self, why: str, error: int) -> None:
        """The image did not come back in time, or is another one: every job fails, every lane is closed with why."""
        self._gone_timer = None
        self._schedule.gone(error)
        self._host.pump()
        self.limits = None
        self._lanes.refuse_all(f"the image is gone: {why}")
