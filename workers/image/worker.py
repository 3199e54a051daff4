"""An image worker: the loop between lanes and connections.

    lanes ──jobs──► Schedule ──commands──► connections ──► NBD server
      ▲                │  ▲                     │
      └──completions───┘  └──────answers────────┘

It holds no policy of its own about bytes: Schedule and the plans have that. Lanes and connections look after
themselves (lanes.py, connections.py); here is the supervisor heard, and what passes between them is passed on.
"""

from __future__ import annotations

import logging
import os
import socket
import time

from msgspec.structs import replace

from config import log as logs
from config.log import facts
from workers.image.connections import Connections
from workers.image.counts import LAYOUT, Counts
from workers.image.job_kinds import CHANGING
from workers.image.lanes import Lanes
from workers.image.ledger import LEDGER_BYTES, Ledger
from workers.image.loop import READ, Loop, Timer
from workers.image.plan import Command, Operation
from workers.image.schedule import Schedule
from workers.image.threads import Threads
from workers.image.writers import FILE_BYTES, Writers
from workers.lane import memory
from workers.lane.channel import Channel, ChannelBroken, ChannelClosed
from workers.lane.protocol import Job, Kind
from workers.lane.tally import words_of
from workers.lane.worker_lane import WorkerLane
from workers.messages import (
    VERSION,
    AskStatistics,
    Attach,
    Connected,
    Disconnected,
    Forget,
    Forgotten,
    Leave,
    Retune,
    Serve,
    Statistics,
    ToWorker,
    WorkerHello,
)
from workers.nbd_handle import is_zero

log = logging.getLogger(__name__)

# More processors than these would wait for one connection's reads.
HASH_THREADS_MOST = 4


class Worker:
    """One export's worker, from Serve to its leaving. The Host of its connections."""

    def __init__(self, control: socket.socket) -> None:
        self.leaving = False
        self._channel: Channel[ToWorker] = Channel(control, ToWorker)
        self._loop = Loop()
        self._schedule: Schedule[WorkerLane | None]
        self._lanes: Lanes
        self._connections: Connections
        self._hashing: Threads | None = None
        self._supervised = True
        self._flushed_to_leave = False
        self._idle_timer: Timer | None = None
        self._peak = 0
        self._writes_noted = 0
        self._forgetting: set[int] = set()  # transfers whose last writes are under way

    def run(self) -> int:
        """Serve until there is nobody left to serve; the exit status."""
        self._begin()
        schedule = self._schedule
        while True:
            self._loop.run_once()
            if schedule.finished or schedule.ready:
                self.pump()
            if self._forgetting:
                self._forget()
            if (self.leaving or not self._supervised) and self._done():
                break
        self.leaving = True
        for connection in self._connections:
            connection.leave()
        return 0

    def _done(self) -> bool:
        if self._schedule.active or self._connections.in_flight:
            return False  # what a cancelled job has left in flight ends first, too
        if not self.leaving and (self._supervised or self._lanes):
            return False
        if self._schedule.ledger.unflushed() and not self._flushed_to_leave and self._connections.can_flush:
            # Nobody may come back for what the ledger remembers, so nothing is left for it.
            self._flushed_to_leave = True
            self._schedule.submit(None, Job(0, Kind.FLUSH), None)
            self.pump()
            return not self._schedule.active
        return True

    # -- the supervisor --------------------------------------------------------------------------------------

    def _begin(self) -> None:
        serve, fds = self._first_message()
        logs.setup(serve.log, "worker")
        buffer = memory.map_file(fds[0], FILE_BYTES)
        self._writers = Writers(buffer)
        # Kept open for its lock: no worker of a later service begins before this one has ended.
        self._ledger_fd = fds[0]
        counts = Counts(words_of(memory.map_shared(fds[1], LAYOUT.size_bytes)))
        os.close(fds[1])
        self._schedule = Schedule(Ledger(buffer[:LEDGER_BYTES]), is_zero)
        self._schedule.hash_threads = min(HASH_THREADS_MOST, len(os.sched_getaffinity(0)))
        self._lanes = Lanes(self._loop, self._schedule, self._on_offered, self._on_left)
        self._connections = Connections(serve, self._loop, self._schedule, counts, self._lanes, self)
        self._channel.send(WorkerHello(VERSION, serve.generation, os.getpid()))
        self._loop.watch(self._channel.fileno(), READ, self._on_message)
        self._connections.begin()

    def _first_message(self) -> tuple[Serve, list[int]]:
        os.set_blocking(self._channel.fileno(), True)
        received = self._channel.receive()
        os.set_blocking(self._channel.fileno(), False)
        assert received is not None
        serve, fds = received
        if not isinstance(serve, Serve) or serve.version != VERSION or len(fds) != 2:
            raise ChannelBroken(f"expected Serve of version {VERSION} with ledger and tally, got {serve}")
        return serve, fds

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
            self._lanes.attach(message, fds)
            if self._idle_timer is not None:
                self._idle_timer.cancel()
        elif isinstance(message, Retune):
            self._retune(message)
        elif isinstance(message, AskStatistics):
            self.tell(self._statistics(message.question))
        elif isinstance(message, Forget):
            # What its requests have submitted stands in the rings at least: the supervisor asks when they have ended.
            self._lanes.submit_published()
            self._forgetting.add(message.transfer)
        elif isinstance(message, Leave):
            self.leaving = True

    def _retune(self, message: Retune) -> None:
        self._connections.serve = replace(self._connections.serve, settings=message.settings, log=message.log)
        logs.setup(message.log, "worker")

    def _forget(self) -> None:
        """Let go of transfers of which no write is under way any more."""
        for transfer in [one for one in self._forgetting if self._schedule.drop_transfer(one)]:
            self._forgetting.remove(transfer)
            self._schedule.ledger.forget(transfer)
            self.tell(Forgotten(transfer))
        self.pump()

    def tell(self, message: Connected | Disconnected | Statistics | Forgotten, *fds: int) -> None:
        """Tell the supervisor, if it is there."""
        if self._supervised:
            try:
                self._channel.send(message, fds)
            except (ChannelClosed, ChannelBroken):
                self._supervised = False

    def _statistics(self, question: int) -> Statistics:
        connections = self._connections
        return Statistics(
            question=question,
            state=connections.state,
            connections=connections.ready,
            in_flight=connections.in_flight,
            in_flight_peak=self._peak,
            bytes_read=connections.read,
            bytes_written=connections.written,
            reconnects=connections.reconnects,
            replays=connections.replays,
            lanes=self._lanes.uses(),
        )

    # -- lanes -----------------------------------------------------------------------------------------------

    def _on_offered(self, lane: WorkerLane) -> None:
        limits = self._connections.limits
        if limits is not None:
            lane.open(limits.facts)
        else:
            self._connections.connect()

    def _on_left(self, lane: WorkerLane) -> None:
        for connection in self._connections:
            connection.left_by(lane)
        if not self._lanes:
            self._idle_timer = self._loop.later(self._connections.serve.settings.idle_s, self._idle)

    def _idle(self) -> None:
        if not self._lanes:
            self.leaving = True

    # -- the way of a job ------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Publish what has finished, send what is ready, until there is neither."""
        schedule = self._schedule
        rung: set[WorkerLane] = set()
        while schedule.finished or (schedule.ready and self._connections.room()):
            self._publish(rung)
            self._send()
            for connection in self._connections:
                connection.settle()
        for lane in rung:
            if not lane.closed:
                lane.ring()

    def _publish(self, rung: set[WorkerLane]) -> None:
        schedule = self._schedule
        if schedule.writes != self._writes_noted:
            self._writes_noted = schedule.writes
            for lane in self._lanes:
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
                self._lanes.drop(asker, str(error))

    def _note_writer(self, transfer: int) -> None:
        """The host may die as soon as the client has heard of its first write that is not flushed."""
        if not self._schedule.ledger.owes(transfer):
            return
        try:
            self._writers.note(transfer)
        except OSError as error:
            log.error("cannot sync the ledger's file", extra=facts(why=error))

    def _send(self) -> None:
        connections = self._connections
        while (connection := connections.room()) is not None and (command := self._schedule.next_ready()) is not None:
            if command.operation is Operation.HASH:
                self._hash(command)
            else:
                command.sent_ns = time.monotonic_ns()
                connection.send(command)
        self._peak = max(self._peak, connections.in_flight)

    def _hash(self, command: Command) -> None:
        from workers.image.checksum import hash_buffer

        if self._hashing is None:
            self._hashing = Threads(self._loop, "hash", self._schedule.hash_threads, self._schedule.ended)
        self._hashing.submit(command, hash_buffer)
