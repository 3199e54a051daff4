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
import ssl
import sys
from dataclasses import dataclass

import uvloop

from config import log as logs
from config.settings import LogSettings, TlsSettings
from mover.front.acceptor import Acceptor
from mover.front.account import Account
from mover.front.admission import Admission
from mover.front.app import create_app, retune
from mover.front.counts import LAYOUT
from mover.front.crowd import Crowd
from mover.front.link import Link
from mover.front.meter import Meters
from mover.front.request_log import RequestLog
from mover.front.sanic_connections import Connections
from mover.front.seats import House
from mover.front.visit import Door
from mover.library.start import make_library
from mover.serve.certificates import make_context
from mover.serve.messages import VERSION, Begin, NewCertificates, Retune, ToFrontEnd
from workers.lane import memory
from workers.lane.channel import Channel, ChannelBroken
from workers.lane.tally import words_of

DRAIN_POLL_S = 0.05


@dataclass(frozen=True)
class Inheritance:
    """What the supervisor's descriptors were."""

    listeners: list[socket.socket]
    seats: House
    crowd: Crowd
    words: memoryview
    context: ssl.SSLContext | None


class FrontEnd:
    """One front end process."""

    def __init__(self, channel: Channel[ToFrontEnd], begin: Begin, given: Inheritance) -> None:
        self._account = Account(given.words)
        self._name = f"front-{begin.front_end}"
        self._admission = Admission(begin.limits, given.seats)
        self._draining = asyncio.Event()
        self._link = Link(channel, begin.settings, self, begin.ask, self._account)
        self._meters = Meters(begin.qos, given.seats.rates(), self._link.tickets)
        self._door = Door(self._link, self._admission, self._meters, begin.settings, begin.unix_socket, self._account)
        self._door.allow = begin.allow
        self._tune_log(begin.log)
        self._library = (
            make_library(begin.library, begin.state_dir, begin.stores, self._door) if begin.library.enabled else None
        )
        self._app = create_app(self._door, begin.metrics_on_tcp, self._library)
        self._connections = Connections(self._app, self._account.turned_away)
        self._acceptor = Acceptor(
            given.listeners,
            given.crowd,
            begin.limits,
            self._connections.make,
            given.context,
            begin.tls.handshake_s,
            self._account.turned_away,
        )

    async def run(self) -> None:
        """Serve until told to drain."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._draining.set if number is signal.SIGTERM else _ignore)
        self._link.begin()
        await self._connections.start()
        self._acceptor.open()
        gc.freeze()  # what is here by now stays; to look at its 35,000 objects took each collection 10 ms
        self._link.ready()
        if self._library is not None:
            self._library.begin()
        await self._draining.wait()
        await self._drain()

    # -- what the link asks of it ----------------------------------------------------------------------------

    def drain(self) -> None:
        """Accept no more, and end when what is under way has."""
        self._draining.set()

    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    def waiting(self) -> int:
        """How many requests are in line."""
        return self._admission.waiting

    def retune(self, message: Retune) -> None:
        """A reload has changed the settings."""
        self._tune_log(message.log)
        self._admission.retune(message.limits)
        self._meters.retune(message.qos)
        self._acceptor.limits = message.limits
        self._door.settings = message.settings
        self._door.allow = message.allow
        retune(self._app, message.settings)

    def renew(self, message: NewCertificates, fds: list[int]) -> None:
        """There are other certificates, which the supervisor has tried; connections that are there keep the old."""
        self._acceptor.context = _context(message.tls, fds)
        self._acceptor.handshake_s = message.tls.handshake_s

    # -- its life --------------------------------------------------------------------------------------------

    def _tune_log(self, settings: LogSettings) -> None:
        logs.setup(settings, self._name)
        wanted = settings.requests and logging.getLogger().isEnabledFor(logging.INFO)
        later = asyncio.get_running_loop().call_later
        self._account.lines = RequestLog(settings, self._name, later) if wanted else None

    async def _drain(self) -> None:
        """Accept no more, let what is under way end; the supervisor's patience is the deadline."""
        self._acceptor.close()
        resting = asyncio.get_running_loop().create_task(self._library.rest()) if self._library is not None else None
        while self._connections:
            self._connections.close_idle()
            await asyncio.sleep(DRAIN_POLL_S)
        if self._library is not None and resting is not None:
            await resting
            await self._library.close()
        self._link.close_lanes()


def _ignore() -> None:
    """A terminal's Ctrl-C is the supervisor's business."""


def _context(settings: TlsSettings, fds: list[int]) -> ssl.SSLContext | None:
    """The TLS of what `fds` hold, and the descriptors closed; None if there are none."""
    try:
        return make_context(fds, settings) if fds else None
    finally:
        for fd in fds:
            os.close(fd)


def _first_message(channel: Channel[ToFrontEnd]) -> tuple[Begin, Inheritance]:
    os.set_blocking(channel.fileno(), True)
    received = channel.receive()
    os.set_blocking(channel.fileno(), False)
    assert received is not None
    message, fds = received
    if not isinstance(message, Begin) or message.version != VERSION:
        raise ChannelBroken(f"expected Begin of version {VERSION}, got {message}")
    sockets = message.tcp + (message.unix_socket is not None)
    listeners = [socket.socket(fileno=fd) for fd in fds[:sockets]]
    seats, crowd, tally, *certificates = fds[sockets:]
    words = words_of(memory.map_shared(tally, LAYOUT.size_bytes))
    context = _context(message.tls, certificates)
    given = Inheritance(listeners, House(seats), Crowd(crowd, message.front_end), words, context)
    for fd in (seats, crowd, tally):
        os.close(fd)
    return message, given


def main() -> int:
    """Serve on the sockets that the supervisor passed."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # who reloads the supervisor may reach us, too
    control = socket.socket(fileno=int(sys.argv[sys.argv.index("--control-fd") + 1]))
    channel: Channel[ToFrontEnd] = Channel(control, ToFrontEnd)
    begin, given = _first_message(channel)
    logging.getLogger("sanic").setLevel(logging.WARNING)

    async def run() -> None:
        await FrontEnd(channel, begin, given).run()

    uvloop.run(run())
    logs.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
