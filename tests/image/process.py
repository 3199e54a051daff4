"""A real worker process, with a lane to it from this one: what front end and supervisor are to it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from config.export import Export
from config.roots import Roots
from config.settings import WorkerSettings
from config.store_settings import Store
from config.url_rules import UrlRules
from tests.harness.waiting import PATIENCE_S
from workers.image.counts import LAYOUT
from workers.image.writers import FILE_BYTES
from workers.lane import checksum_format, memory
from workers.lane.arena import Arena
from workers.lane.channel import Channel, pair
from workers.lane.checksum_format import Asked
from workers.lane.front_lane import FrontLane, InFlight
from workers.lane.protocol import MOST_FILE_BYTES, Completion, Kind, Status
from workers.messages import VERSION, Attach, FromWorker, Serve

MIB = 1024 * 1024
SLOTS = 16
SETTINGS = WorkerSettings()
# Every path may be opened, but is looked at as one that a ticket names.
ANYWHERE = Roots(files=("/",), nbd_sockets=("/",), tls_files=("/",))
NO_URLS = UrlRules()
_generations = count(1)


class Process:
    """The worker of `export`, killed and started again in place; `lane` stays, as a front end's does."""

    def __init__(
        self,
        export: Export,
        settings: WorkerSettings,
        store: Store | None = None,
        roots: Roots | None = None,
        urls: UrlRules = NO_URLS,
    ) -> None:
        self._export = export
        self._urls = urls
        self._store = store
        self._settings = settings
        self._roots = roots
        self._ledger_fd = memory.create("ledger", FILE_BYTES)
        self._tally_fd = memory.create("tally", LAYOUT.size_bytes)
        self._channel: Channel[FromWorker]
        self._popen: subprocess.Popen[bytes]
        self._lanes = count(1)
        self.lane = self.new_lane()

    def new_lane(self) -> FrontLane:
        """A lane that no worker knows yet."""
        number = next(self._lanes)
        return FrontLane(number, Arena(number, SLOTS, MIB, SLOTS), PATIENCE_S, lambda lane: None)

    def start(self) -> None:
        """Start a worker and attach `lane`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "workers.image", "--control-fd", str(theirs.fileno())]
        self._popen = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()
        self._channel = Channel(ours, FromWorker)
        serve = Serve(
            VERSION,
            next(_generations),
            self._export,
            self._settings,
            store=self._store,
            roots=self._roots,
            urls=self._urls,
        )
        self._channel.send(serve, [self._ledger_fd, self._tally_fd])
        self.attach(self.lane)

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._popen.pid

    def attach(self, lane: FrontLane) -> None:
        """Introduce a lane to the worker."""
        generation = next(_generations)
        ours, theirs = pair()
        with theirs:
            self._channel.send(Attach(lane.number, generation, lane.number), [theirs.fileno()])
        lane.attach(ours, generation)

    def kill(self) -> None:
        """SIGKILL, and the process is gone."""
        self._popen.kill()
        self._popen.wait()
        self._channel.close()

    @property
    def memory_peak_bytes(self) -> int:
        """The most memory of its own that the worker has had."""
        with open(f"/proc/{self._popen.pid}/status") as status:
            fields = dict(line.split(":", 1) for line in status)
        return int(fields["VmHWM"].split()[0]) * 1024

    def close(self) -> None:
        """The end of everything; the worker must have ended well, unless it was killed."""
        self.lane.close("the test is over")
        if self._popen.poll() is None:
            self._channel.close()
            assert self._popen.wait(PATIENCE_S) == 0
        os.close(self._ledger_fd)
        os.close(self._tally_fd)

    # -- jobs, one after the other ---------------------------------------------------------------------------

    async def do(self, kind: Kind, offset: int = 0, length: int = 0, data: bytes = b"", **fields: int) -> Completion:
        """A job without a slot, or with `data` in it."""
        if kind is not Kind.WRITE:
            return await self.lane.run(kind, offset, length, **fields)
        holder = self.lane.slots.enter()
        slot = await self.lane.take_slot(holder)
        self.lane.views[slot][: len(data)] = data
        completion = await self.lane.run(kind, offset, len(data), slot=slot, **fields)
        self.lane.give_back(slot)
        self.lane.slots.leave(holder)
        return completion

    async def read(self, offset: int, length: int, context: int = 0) -> bytes:
        """The bytes; AssertionError if there are none to be had."""
        completion, data = await self.filled(Kind.READ, offset, length, context=context)
        assert completion.status is Status.OK, completion
        return data[:length]

    async def filled(self, kind: Kind, offset: int, length: int, **fields: int) -> tuple[Completion, bytes]:
        """A job that fills its slot."""
        holder = self.lane.slots.enter()
        slot = await self.lane.take_slot(holder)
        completion = await self.lane.run(kind, offset, length, slot=slot, **fields)
        data = bytes(self.lane.views[slot])
        self.lane.give_back(slot)
        self.lane.slots.leave(holder)
        return completion, data

    async def ask_checksum(self, asked: Asked) -> InFlight:
        """A checksum that has begun; its slot is in the job."""
        slot = await self.lane.take_slot(self.lane.slots.enter())
        checksum_format.ask(self.lane.views[slot], asked)
        return self.lane.submit(Kind.CHECKSUM, slot=slot)

    async def checksum(self, asked: Asked) -> str:
        """The hex digest."""
        in_flight = await self.ask_checksum(asked)
        completion = await in_flight.done
        assert completion.status is Status.OK, completion
        digest = checksum_format.answered(self.lane.views[in_flight.job.slot], completion.value)
        self.lane.give_back(in_flight.job.slot)
        return digest

    async def open(self) -> Completion:
        """OPEN of a whole file."""
        return await self.do(Kind.OPEN, length=MOST_FILE_BYTES)


@asynccontextmanager
async def working(
    export: Export,
    settings: WorkerSettings = SETTINGS,
    store: Store | None = None,
    roots: Roots | None = ANYWHERE,
) -> AsyncIterator[Process]:
    """A worker of `export` with an open lane."""
    process = Process(export, settings, store, roots)
    process.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            await process.lane.opened()
        yield process
    finally:
        process.close()
