"""An image worker: the loop between lanes and NBD connections.

    lanes ──jobs──► Schedule ──commands──► connections ──► NBD server
      ▲                │  ▲                     │
      └──completions───┘  └──────answers────────┘

It holds no policy of its own about bytes: Schedule and the plans have that. Here are descriptors, time, and the
care for connections: it reconnects with backoff inside a deadline, and refuses lanes when that has passed.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import socket
import time
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING

from msgspec.structs import replace

from config import log as logs
from config.log import facts
from workers.image.connection import Connection, State
from workers.image.counts import LAYOUT, Counts
from workers.image.job_kinds import CHANGING
from workers.image.ledger import LEDGER_BYTES, Ledger
from workers.image.loop import READ, Loop, Timer
from workers.image.nbd_export import NbdConnection
from workers.image.plan import WRITING, Command, Limits, Operation
from workers.image.schedule import Schedule
from workers.image.succession import Succession
from workers.image.threads import Threads
from workers.image.writers import FILE_BYTES, Writers
from workers.lane import memory
from workers.lane.channel import Channel, ChannelBroken, ChannelClosed
from workers.lane.protocol import Job, Kind
from workers.lane.tally import words_of
from workers.lane.worker_lane import LaneBroken, WorkerLane
from workers.messages import (
    VERSION,
    AskStatistics,
    Attach,
    Connected,
    Disconnected,
    Forget,
    Forgotten,
    LaneUse,
    Leave,
    Retune,
    Serve,
    Statistics,
    ToWorker,
    WorkerHello,
)
from workers.nbd_handle import is_zero

if TYPE_CHECKING:
    from workers.store.view_export import View

log = logging.getLogger(__name__)

BACKOFF_FIRST_S = 0.02
BACKOFF_MOST_S = 1.0
WATCH_S = 1.0
# A second connection is optional, and `qemu-nbd -e 1` lets it hang.
EXTRA_CONNECT_S = 1.0
# One read of 2 to 31 MiB raises glibc's threshold for mmap in qemu, for good; 32 MiB would be over its limit.
WARMING_BYTES = 16 * 1024 * 1024
WARMING_AFTER_BYTES = 4 * 1024 * 1024
# What the kernel keeps itself.
FILES = ("file", "part")

# More processors than these would wait for one connection's reads.
HASH_THREADS_MOST = 4


class Worker:
    """One export's worker, from Serve to its leaving."""

    def __init__(self, control: socket.socket) -> None:
        self._channel: Channel[ToWorker] = Channel(control, ToWorker)
        self._loop = Loop()
        self._lanes: dict[int, WorkerLane] = {}
        self._numbers = count(1)
        self._connections: list[Connection] = []
        self._introduced: set[int] = set()  # numbers of connections whose sockets the supervisor has
        self._hashing: Threads | None = None
        self._serve: Serve
        self._counts: Counts
        self._schedule: Schedule[WorkerLane | None]
        self._succession: Succession[WorkerLane | None]
        self._limits: Limits | None = None
        self._view: View | None = None
        self._supervised = True
        self._leaving = False
        self._flushed_to_leave = False
        self._gone_timer: Timer | None = None
        self._idle_timer: Timer | None = None
        self._failures = 0
        self._warmed = False
        self._read = self._written = self._peak = self._reconnects = self._replays = 0
        self._writes_noted = 0
        self._forgetting: set[int] = set()  # transfers whose last writes are under way

    def run(self) -> int:
        """Serve until there is nobody left to serve; the exit status."""
        self._begin()
        schedule = self._schedule
        while True:
            self._loop.run_once()
            if schedule.finished or schedule.ready:
                self._pump()
            if self._forgetting:
                self._forget()
            if (self._leaving or not self._supervised) and self._done():
                break
        self._leaving = True
        for connection in list(self._connections):
            connection.leave()
        return 0

    def _done(self) -> bool:
        if self._schedule.active or self._in_flight():
            return False  # what a cancelled job has left in flight ends first, too
        if not self._leaving and (self._supervised or self._lanes):
            return False
        if self._schedule.ledger.unflushed() and not self._flushed_to_leave and self._can_flush():
            # Nobody may come back for what the ledger remembers, so nothing is left for it.
            self._flushed_to_leave = True
            self._schedule.submit(None, Job(0, Kind.FLUSH), None)
            self._pump()
            return not self._schedule.active
        return True

    def _can_flush(self) -> bool:
        ready = any(connection.state is State.READY for connection in self._connections)
        return ready and self._limits is not None and self._limits.facts.can_flush

    # -- the supervisor --------------------------------------------------------------------------------------

    def _begin(self) -> None:
        os.set_blocking(self._channel.fileno(), True)
        received = self._channel.receive()
        os.set_blocking(self._channel.fileno(), False)
        assert received is not None
        serve, fds = received
        if not isinstance(serve, Serve) or serve.version != VERSION or len(fds) != 2:
            raise ChannelBroken(f"expected Serve of version {VERSION} with ledger and tally, got {serve}")
        self._serve = serve
        logs.setup(serve.log, "worker")
        # A job that is submitted again must not meet a session of its predecessor's number.
        self._session_numbers = count(serve.generation << 31)
        buffer = memory.map_file(fds[0], FILE_BYTES)
        ledger = Ledger(buffer[:LEDGER_BYTES])
        self._writers = Writers(buffer)
        # Kept open for its lock: no worker of a later service begins before this one has ended.
        self._ledger_fd = fds[0]
        self._counts = Counts(words_of(memory.map_shared(fds[1], LAYOUT.size_bytes)))
        os.close(fds[1])
        self._schedule = Schedule(ledger, is_zero)
        self._schedule.hash_threads = min(HASH_THREADS_MOST, len(os.sched_getaffinity(0)))
        self._succession = Succession(self._schedule, local=serve.export.transport != "tcp")
        if self._succession.take_over(serve.server_lost, serve.doubts):
            self._loop.later(max(0.0, serve.doubts_until_s - time.monotonic()), self._succession.settled)
        self._channel.send(WorkerHello(VERSION, serve.generation, os.getpid()))
        self._loop.watch(self._channel.fileno(), READ, self._on_message)
        self._loop.later(WATCH_S, self._watch_commands)
        self._connect()

    def _on_message(self, events: int) -> None:
        try:
            while (received := self._channel.receive()) is not None:
                message, fds = received
                self._handle(message, fds)
        except (ChannelClosed, ChannelBroken) as error:
            log.warning("supervisor gone", extra=facts(reason=error))
            self._loop.unwatch(self._channel.fileno())
            self._supervised = False

    def _handle(self, message: ToWorker, fds: list[int]) -> None:
        if isinstance(message, Attach):
            self._attach(message, fds)
        elif isinstance(message, Retune):
            self._retune(message)
        elif isinstance(message, AskStatistics):
            self._tell(self._statistics(message.question))
        elif isinstance(message, Forget):
            # What its requests have submitted stands in the rings at least: the supervisor asks when they have ended.
            for lane in list(self._lanes.values()):
                if lane.offered:
                    self._submit(lane, lane.published())
            self._forgetting.add(message.transfer)
        elif isinstance(message, Leave):
            self._leaving = True

    def _retune(self, message: Retune) -> None:
        self._serve = replace(self._serve, settings=message.settings, log=message.log)
        logs.setup(message.log, "worker")

    def _forget(self) -> None:
        """Let go of transfers of which no write is under way any more."""
        for transfer in [one for one in self._forgetting if self._schedule.drop_transfer(one)]:
            self._forgetting.remove(transfer)
            self._schedule.ledger.forget(transfer)
            self._tell(Forgotten(transfer))
        self._pump()

    def _tell(self, message: Connected | Disconnected | Statistics | Forgotten, *fds: int) -> None:
        if self._supervised:
            try:
                self._channel.send(message, fds)
            except (ChannelClosed, ChannelBroken):
                self._supervised = False

    def _statistics(self, question: int) -> Statistics:
        return Statistics(
            question=question,
            state=self._connections[0].state.name.lower() if self._connections else "closed",
            connections=sum(connection.state is State.READY for connection in self._connections),
            in_flight=self._in_flight(),
            in_flight_peak=self._peak,
            bytes_read=self._read,
            bytes_written=self._written,
            reconnects=self._reconnects,
            replays=self._replays,
            lanes=[LaneUse(lane.front_end, lane.slots, lane.slots_used) for lane in self._lanes.values()],
        )

    def _in_flight(self) -> int:
        return sum(connection.in_flight for connection in self._connections)

    # -- lanes -----------------------------------------------------------------------------------------------

    def _attach(self, message: Attach, fds: list[int]) -> None:
        lane = WorkerLane(message.lane, message.generation, message.front_end, socket.socket(fileno=fds[0]))
        self._lanes[lane.number] = lane
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._loop.watch(lane.channel.fileno(), READ, lambda events: self._on_lane(lane))

    def _on_lane(self, lane: WorkerLane) -> None:
        try:
            while (received := lane.channel.receive()) is not None:
                lane.accept(*received)
                self._loop.watch(lane.doorbell, READ, lambda events: self._on_jobs(lane))
                if self._limits is not None:
                    lane.open(self._limits.facts)
                elif not self._connecting():
                    self._connect()
        except (ChannelClosed, ChannelBroken, LaneBroken) as error:
            self._drop(lane, str(error))

    def _on_jobs(self, lane: WorkerLane) -> None:
        self._submit(lane, lane.jobs())

    def _submit(self, lane: WorkerLane, jobs: Iterator[Job]) -> None:
        try:
            for job in jobs:
                self._schedule.submit(lane, job, lane.slot(job) if job.slot >= 0 else None, lane.identity)
        except LaneBroken as error:
            self._drop(lane, str(error))

    def _drop(self, lane: WorkerLane, why: str) -> None:
        """Its jobs go on to their end, and nobody hears of it."""
        if lane.closed:
            return
        log.info("lane left", extra=facts(front_end=lane.front_end, reason=why))
        del self._lanes[lane.number]
        self._loop.unwatch(lane.channel.fileno())
        if lane.doorbell >= 0:
            self._loop.unwatch(lane.doorbell)
        lane.close()
        self._schedule.left_by(lane)
        for connection in list(self._connections):
            connection.left_by(lane)
        if not self._lanes:
            self._idle_timer = self._loop.later(self._serve.settings.idle_s, self._idle)

    def _idle(self) -> None:
        if not self._lanes:
            self._leaving = True

    # -- the way of a job ------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Publish what has finished, send what is ready, until there is neither."""
        schedule = self._schedule
        rung: set[WorkerLane] = set()
        while schedule.finished or (schedule.ready and self._room()):
            self._publish(rung)
            self._send()
            for connection in list(self._connections):
                connection.settle()
        for lane in rung:
            if not lane.closed:
                lane.ring()

    def _publish(self, rung: set[WorkerLane]) -> None:
        schedule = self._schedule
        if schedule.writes != self._writes_noted:
            self._writes_noted = schedule.writes
            for lane in self._lanes.values():
                lane.note_writes(schedule.writes)
        while schedule.finished:
            asker, job, completion = schedule.finished.popleft()
            if asker is None or asker.closed:
                continue
            if job.kind in CHANGING and job.transfer not in self._writers:
                self._note_writer(job.transfer)
            try:
                asker.publish(job, completion)
                rung.add(asker)
            except ChannelBroken as error:
                self._drop(asker, str(error))

    def _note_writer(self, transfer: int) -> None:
        """The host may die as soon as the client has heard of its first write that is not flushed."""
        if not self._schedule.ledger.owes(transfer):
            return
        try:
            self._writers.note(transfer)
        except OSError as error:
            log.error("cannot sync the ledger's file", extra=facts(why=error))

    def _room(self) -> Connection | None:
        """The READY connection with the fewest commands in flight, if it may have one more."""
        least, depth = None, self._serve.settings.queue_depth
        for connection in self._connections:
            if connection.state is State.READY and connection.in_flight < depth:
                least, depth = connection, connection.in_flight
        return least

    def _send(self) -> None:
        while (connection := self._room()) is not None and (command := self._schedule.next_ready()) is not None:
            if command.operation is Operation.HASH:
                self._hash(command)
            else:
                command.sent_ns = time.monotonic_ns()
                connection.send(command)
        self._peak = max(self._peak, self._in_flight())

    def _hash(self, command: Command) -> None:
        from workers.image.checksum import hash_buffer

        if self._hashing is None:
            self._hashing = Threads(self._loop, "hash", self._schedule.hash_threads, self._schedule.ended)
        self._hashing.submit(command, hash_buffer)

    def ended(self, command: Command, error: int) -> None:
        """A connection has the server's answer to a command."""
        if error and command.operation is Operation.FLUSH and self._serve.export.transport in FILES:
            # The kernel says it once: pages that it could not write are clean to it from now on.
            self._schedule.ledger.server_lost()
        if not error and command.operation is Operation.READ:
            self._read += command.length
        elif not error and command.operation in WRITING:
            self._written += command.length
        self._counts.ended(command.operation, command.length, error, time.monotonic_ns() - command.sent_ns)
        self._schedule.ended(command, error)
        if not self._warmed and self._read + self._written >= WARMING_AFTER_BYTES:
            self._warm()

    def _warm(self) -> None:
        """Make qemu's allocator keep its buffers: later reads are 2 to 3.3 times faster, writes 2.8 times."""
        self._warmed = True
        limits = self._limits
        local = bool(self._connections) and self._serve.export.transport == "unix"
        if not (self._serve.settings.warm_allocator and local and limits is not None):
            return
        if not _is_qemu(self._connections[0].server[0]):
            return
        length = min(WARMING_BYTES, limits.size, limits.most_bytes)
        if length >= 2 * 1024 * 1024:
            self._schedule.submit(None, Job(0, Kind.READ, 0, length), memoryview(mmap.mmap(-1, length)))

    # -- connections -----------------------------------------------------------------------------------------

    def _connecting(self) -> bool:
        return any(connection.state is not State.CLOSED for connection in self._connections)

    def _connect(self) -> None:
        if self._connecting():
            return
        self._open_connection(self._serve.settings.connect_s)

    def _open_connection(self, connect_s: float) -> None:
        connection = self._new_connection(connect_s)
        self._connections.append(connection)
        connection.open()

    def _new_connection(self, connect_s: float) -> Connection:
        number, serve = next(self._numbers), self._serve
        if serve.export.transport == "http":
            from workers.store.url_export import UrlExport

            return UrlExport(number, serve.export, serve.urls, self._loop, self)
        if serve.store is not None and serve.export.transport == "object":
            from workers.store.object_export import ObjectExport

            return ObjectExport(number, serve.export, serve.store, self._loop, self)
        if serve.store is not None:
            from workers.store.store_export import Around, StoreExport

            around = Around(serve.urls, serve.neighbours)
            return StoreExport(number, serve.export, serve.store, around, self._loop, self, self._session_numbers)
        if serve.export.transport == "view":
            return self._new_view(number, connect_s)
        if serve.export.transport not in FILES:
            return NbdConnection(number, serve.export, serve.places, serve.settings, self._loop, self, connect_s)
        if not serve.export.whole_file:
            from workers.image.file_export import FileExport

            return FileExport(number, serve.export, serve.places, self._loop, self)
        from workers.image.whole_file import WholeFile

        return WholeFile(number, serve.export, serve.places, self._loop, self, self._session_numbers)

    def _new_view(self, number: int, connect_s: float) -> Connection:
        from workers.store.view_export import View, ViewConnection

        if self._view is None:
            self._view = View(self._serve.export, self._loop)
        return ViewConnection(number, self._view, self._serve.settings, self._loop, self, connect_s)

    def introduce(self, connection: Connection, fd: int) -> None:
        """The supervisor keeps a duplicate of every socket, for the fence after our death.

        Nothing is ever written to a view, and its server ends with us.
        """
        if self._view is not None:
            return
        self._introduced.add(connection.number)
        self._tell(Connected(connection.number), fd)

    def connected(self, connection: Connection, limits: Limits) -> None:
        """A connection is READY: the first of several, or one more."""
        if self._limits is not None and connection is not self._connections[0]:
            if connection.server not in self._servers(besides=connection):
                connection.break_off("another server answers than on the other connections")
            return
        if self._gone_timer is not None:
            self._gone_timer.cancel()
            self._gone_timer = None
        self._failures = 0
        if self._succession.connected(connection.server, limits):
            log.warning("server lost with unflushed writes", extra=facts(export=self._serve.export.key))
        before, self._limits = self._limits, limits
        if before is not None and before.facts != limits.facts:
            self._gone("the image is another one now", errno.ESTALE)
            self._limits = limits
        if before is None:
            for lane in list(self._lanes.values()):
                if lane.offered:
                    lane.open(limits.facts)
        self._connect_more(limits)

    def _servers(self, besides: Connection) -> set[tuple[int, int]]:
        others = (other for other in self._connections if other is not besides)
        return {other.server for other in others if other.state is State.READY}

    def _connect_more(self, limits: Limits) -> None:
        if not limits.facts.multi_conn:
            return
        while len(self._connections) < self._serve.settings.connections:
            self._open_connection(EXTRA_CONNECT_S)

    def disconnected(self, connection: Connection, why: str, commands: list[Command], fenced: bool) -> None:
        """A connection has ended: its commands are sent again on the next one, in their old order."""
        self._connections.remove(connection)
        self._replays += len(commands)
        self._counts.replayed(len(commands))
        late = self._succession.disconnected(connection.server, connection.was_ready, commands, fenced)
        if late:
            self._loop.later(self._serve.settings.settle_s, lambda: self._let_go(connection, late))
        else:
            self._let_go(connection, late)
        if self._leaving and not self._schedule.active:
            return
        if not any(other.state is State.READY for other in self._connections):
            self._retry(why)

    def _let_go(self, connection: Connection, late: list[Command]) -> None:
        """Nothing sent on this connection will land any more: what was not fenced has settled."""
        if connection.number in self._introduced:
            self._introduced.remove(connection.number)
            self._tell(Disconnected(connection.number))
        self._schedule.lost(late)

    @property
    def _absent(self) -> int:
        """What jobs fail with when the image is not there: no connection to a server, or no file."""
        return errno.ENOENT if self._serve.export.transport in FILES else errno.ENOTCONN

    def _retry(self, why: str) -> None:
        log.warning("no connection", extra=facts(export=self._serve.export.key, reason=why))
        self._refuse_newcomers(why)
        if self._serve.export.transport == "http":
            # It has been tried long enough, or is another one: who wants it asks again.
            self._gone(why, errno.ESTALE)
            return
        waiting = self._schedule.active or any(lane.resumes for lane in self._lanes.values())
        if not waiting and not self._lanes:
            self._limits = None
            return
        if self._gone_timer is None:
            self._reconnects += 1
            self._counts.reconnecting()
            # Not before writes in doubt have settled: their ranges are free for others when their jobs are gone.
            patience = max(self._serve.settings.reconnect_s, self._serve.settings.settle_s)
            self._gone_timer = self._loop.later(patience, lambda: self._gone(why, self._absent))
        pause = min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2 ** min(self._failures, 10))
        self._failures += 1
        self._loop.later(pause, self._connect)

    def _refuse_newcomers(self, why: str) -> None:
        """Lanes that were never open, and have nothing to replay, hear at once that there is no server."""
        if self._limits is None:
            for lane in list(self._lanes.values()):
                if lane.offered and not lane.resumes:
                    self._refuse(lane, why)

    def _refuse(self, lane: WorkerLane, why: str) -> None:
        try:
            lane.refuse(why)
        except (ChannelClosed, ChannelBroken):
            pass  # it has left already
        self._drop(lane, why)

    def _gone(self, why: str, error: int) -> None:
        """The image did not come back in time, or is another one: every job fails, every lane is closed with why."""
        self._gone_timer = None
        self._schedule.gone(error)
        self._pump()
        self._limits = None
        for lane in list(self._lanes.values()):
            if lane.offered:  # one that is just coming would not hear why, and has the image opened anew
                self._refuse(lane, f"the image is gone: {why}")

    def _watch_commands(self) -> None:
        """A command unanswered for too long is taken for a lost connection."""
        self._loop.later(WATCH_S, self._watch_commands)
        patience = self._serve.settings.command_s
        for connection in list(self._connections):
            if connection.waited_s > patience:
                connection.break_off(f"no answer within {patience:g} s")


def _is_qemu(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/comm", "rb") as comm:
            return comm.read().startswith(b"qemu")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EACCES, errno.ESRCH):
            return False
        raise
