"""The front end's listening sockets: who is let in, and by which front end.

a connection waits ──► others have fewer? leave it to them, for a while
                   ──► the host or the client has too many? say so, and close
                   ──► TLS on TCP if the settings say so ──► the HTTP protocol
"""

from __future__ import annotations

import asyncio
import errno
import logging
import select
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from config.log import facts
from config.settings import LimitSettings
from mover.front.crowd import Crowd, Verdict
from mover.front.refusals import Refusals
from mover.front.tls import TlsProtocol, TlsTransport

log = logging.getLogger(__name__)

# So many are accepted before other events have their turn.
ACCEPTS_PER_TURN = 16
# A connection is left to front ends with fewer of them for LEAVE_S, some times: FEW_LEAVES where this one is one ahead,
# MOST_LEAVES where it is more. After those the others must hang, and for HURRY_S nothing is left to them.
LEAVE_S = 0.005
FEW_LEAVES = 2
MOST_LEAVES = 20
HURRY_S = 1.0
# Descriptors or memory have run out: what holds them must end first.
OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
RECOVER_S = 0.5

# Why nobody is let in, as mover/front/counts.py tells them apart.
REASONS = {Verdict.HOST_FULL: "connections", Verdict.CLIENT_FULL: "client_connections"}
# Called with one of its reasons.
TurnedAway = Callable[[str], None]
# Makes the HTTP protocol of a connection; what it is given is called when the connection has ended.
MakeProtocol = Callable[[Callable[[], None]], asyncio.Protocol]


class Acceptor:
    """Accepts connections of one front end. `context` is the TCP listener's TLS, None if it is plain."""

    def __init__(
        self,
        sockets: list[socket.socket],
        crowd: Crowd,
        limits: LimitSettings,
        make_protocol: MakeProtocol,
        context: ssl.SSLContext | None,
        handshake_s: float,
        turned_away: TurnedAway,
    ) -> None:
        self.limits = limits
        self.context = context
        self.handshake_s = handshake_s
        self.connections = 0
        self._sockets = sockets
        self._crowd = crowd
        self._make_protocol = make_protocol
        self._turned_away = turned_away
        self._loop = asyncio.get_running_loop()
        self._refusals = Refusals()
        self._tasks: set[asyncio.Task[None]] = set()
        # How often the connection that waits was left to other front ends.
        self._left: Counter[socket.socket] = Counter()
        self._hurry_until_s = 0.0
        self._timers: dict[socket.socket, asyncio.TimerHandle] = {}

    def open(self) -> None:
        """Accept from now on."""
        self._crowd.open()
        for sock in self._sockets:
            sock.setblocking(False)
            self._loop.add_reader(sock.fileno(), self._on_waiting, sock)

    def close(self) -> None:
        """Accept no more; connections that are there go on."""
        self._crowd.close()
        self._refusals.close()
        for timer in self._timers.values():
            timer.cancel()
        for sock in self._sockets:
            self._loop.remove_reader(sock.fileno())
            sock.close()
        self._sockets = []

    # -- one connection --------------------------------------------------------------------------------------

    def _on_waiting(self, sock: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            if self._leaves_it(sock):
                return
            try:
                client, address = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return  # another front end was faster, or the client has gone again
            except OSError as error:
                if error.errno not in OUT_OF_RESOURCES:
                    raise
                log.error("cannot accept connections", extra=facts(why=error, again_in_s=RECOVER_S))
                self._look_away(sock, RECOVER_S)
                return
            self._left[sock] = 0
            self._admit(client, address)

    def _leaves_it(self, sock: socket.socket) -> bool:
        """Whether another front end should take the connection that waits: it has fewer, and has had little time."""
        lead = self._crowd.lead
        if lead <= 0 or self._loop.time() < self._hurry_until_s:
            return False
        if self._left[sock] >= (FEW_LEAVES if lead == 1 else MOST_LEAVES):
            if lead > 1:
                self._hurry_until_s = self._loop.time() + HURRY_S
            return False
        self._left[sock] += 1
        self._look_away(sock, LEAVE_S)
        return True

    def _look_away(self, sock: socket.socket, seconds: float) -> None:
        self._loop.remove_reader(sock.fileno())
        self._timers[sock] = self._loop.call_later(seconds, self._look_again, sock)

    def _look_again(self, sock: socket.socket) -> None:
        del self._timers[sock]
        if not select.select([sock], [], [], 0)[0]:
            self._left[sock] = 0  # another front end has taken what waited
        self._loop.add_reader(sock.fileno(), self._on_waiting, sock)

    def _admit(self, client: socket.socket, address: Any) -> None:
        client.setblocking(False)
        if client.family != socket.AF_UNIX:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bucket = self._bucket(client, address)
        verdict = self._crowd.enter(bucket, self.limits.connections, self.limits.client_connections)
        if verdict is not Verdict.WELCOME:
            self._turned_away(REASONS[verdict])
            self._refusals.refuse(client, verdict, self._context(client) is not None)
            return
        self.connections += 1
        task = self._loop.create_task(self._serve(client, _Once(partial(self._leave, bucket))))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _bucket(self, client: socket.socket, address: Any) -> int | None:
        """Where the client is counted; clients of the Unix socket have no address.

        `address` is what accept() said: a client that has gone again has no peer's name any more.
        """
        if client.family == socket.AF_UNIX:
            return None
        return self._crowd.bucket(client.family, address[0])

    def _leave(self, bucket: int | None) -> None:
        self.connections -= 1
        self._crowd.leave(bucket)

    def _context(self, client: socket.socket) -> ssl.SSLContext | None:
        return None if client.family == socket.AF_UNIX else self.context

    async def _serve(self, client: socket.socket, ended: Callable[[], None]) -> None:
        context = self._context(client)
        try:
            if context is None:
                await self._loop.connect_accepted_socket(partial(self._make_protocol, ended), client)
            else:
                tls = TlsTransport(
                    context, self.handshake_s, partial(self._make_protocol, _nothing), ended, self._turned_away
                )
                await self._loop.connect_accepted_socket(partial(TlsProtocol, tls), client)
        except OSError:
            client.close()
            ended()


class _Once:
    """Calls something the first time only."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    def __call__(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call()


def _nothing() -> None:
    pass
