"""`python -m mover.front --control-fd N`: one front end, started by the supervisor only.

Sanic's own runner is not used: it knows one listener well and cannot drain two. Here the loop, the listeners and
the end are ours; Sanic parses, routes and answers.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from typing import Any

import uvloop

from config import log as logs
from config.settings import LogSettings
from mover.front import sanic_seam
from mover.front.account import Account
from mover.front.admission import Admission
from mover.front.app import App, create_app, retune
from mover.front.counts import LAYOUT
from mover.front.link import Link
from mover.front.request_log import RequestLog
from mover.front.seats import House
from mover.front.visit import Door
from mover.serve.messages import VERSION, Begin, Retune, ToFrontEnd
from workers.lane import memory
from workers.lane.channel import Channel, ChannelBroken
from workers.lane.tally import words_of

BACKLOG = 1024
DRAIN_POLL_S = 0.05


class FrontEnd:
    """One front end process."""

    def __init__(
        self, channel: Channel[ToFrontEnd], begin: Begin, sockets: list[socket.socket], seats: House, words: memoryview
    ) -> None:
        self._account = Account(words)
        self._name = f"front-{begin.front_end}"
        self._sockets = sockets
        self._admission = Admission(begin.limits, seats)
        self._draining = asyncio.Event()
        link = Link(channel, begin.settings, self, begin.ask, self._account)
        self._link = link
        self._door = Door(link, self._admission, begin.settings, begin.unix_socket, self._account)
        self._tune_log(begin.log)
        self._app = create_app(self._door, begin.metrics_on_tcp)
        self._servers: list[Any] = []

    async def run(self) -> None:
        """Serve until told to drain."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._draining.set if number is signal.SIGTERM else _ignore)
        self._link.begin()
        await self._listen(self._app)
        gc.freeze()  # what is here by now stays; to look at its 35,000 objects took each collection 10 ms
        self._link.ready()
        await self._draining.wait()
        await self._drain()

    # -- what the link asks of it ----------------------------------------------------------------------------

    def drain(self) -> None:
        """Accept no more, and end when what is under way has."""
        self._draining.set()

    def connections(self) -> int:
        """How many clients are connected."""
        return sum(len(server.connections) for server in self._servers)

    def waiting(self) -> int:
        """How many requests are in line."""
        return self._admission.waiting

    def retune(self, message: Retune) -> None:
        """A reload has changed the settings."""
        self._tune_log(message.log)
        self._admission.retune(message.limits)
        self._door.settings = message.settings
        retune(self._app, message.settings)

    # -- its life --------------------------------------------------------------------------------------------

    def _tune_log(self, settings: LogSettings) -> None:
        logs.setup(settings, self._name)
        wanted = settings.requests and logging.getLogger().isEnabledFor(logging.INFO)
        later = asyncio.get_running_loop().call_later
        self._account.lines = RequestLog(settings, self._name, later) if wanted else None

    async def _listen(self, app: App) -> None:
        for sock in self._sockets:
            # Nothing is accepted before Sanic has finished its start.
            options = {"start_serving": False}
            self._servers.append(await app.create_server(sock=sock, backlog=BACKLOG, asyncio_server_kwargs=options))
        await self._servers[0].startup()
        await self._servers[0].before_start()
        for server in self._servers:
            await server.start_serving()
        await self._servers[0].after_start()

    async def _drain(self) -> None:
        """Accept no more, let what is under way end; the supervisor's patience is the deadline."""
        for server in self._servers:
            server.server.close()
        while any(server.connections for server in self._servers):
            for server in self._servers:
                sanic_seam.close_if_idle(server.connections)
            await asyncio.sleep(DRAIN_POLL_S)
        self._link.close_lanes()


def _ignore() -> None:
    """A terminal's Ctrl-C is the supervisor's business."""


def _first_message(channel: Channel[ToFrontEnd]) -> tuple[Begin, list[socket.socket], House, memoryview]:
    os.set_blocking(channel.fileno(), True)
    received = channel.receive()
    os.set_blocking(channel.fileno(), False)
    assert received is not None
    message, fds = received
    if not isinstance(message, Begin) or message.version != VERSION:
        raise ChannelBroken(f"expected Begin of version {VERSION}, got {message}")
    *listeners, seats, tally = fds
    house = House(seats)
    words = words_of(memory.map_shared(tally, LAYOUT.size_bytes))
    os.close(seats)
    os.close(tally)
    return message, [socket.socket(fileno=fd) for fd in listeners], house, words


def main() -> int:
    """Serve on the sockets that the supervisor passed."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # who reloads the supervisor may reach us, too
    control = socket.socket(fileno=int(sys.argv[sys.argv.index("--control-fd") + 1]))
    channel: Channel[ToFrontEnd] = Channel(control, ToFrontEnd)
    begin, sockets, seats, words = _first_message(channel)
    logging.getLogger("sanic").setLevel(logging.WARNING)

    async def run() -> None:
        await FrontEnd(channel, begin, sockets, seats, words).run()

    uvloop.run(run())
    logs.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
