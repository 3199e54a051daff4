"""What touches the private parts of Sanic's connections; sanic_seam.py does so with requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

from sanic import Sanic
from sanic.http.constants import Stage
from sanic.http.http1 import Http
from sanic.models.server_types import Signal
from sanic.server.async_server import AsyncioServer
from sanic.server.protocols.http_protocol import HttpProtocol

from mover.front import heads


class _Http(Http):
    """Sanic's reader of requests, but what a head may have depends on whom it is for."""

    __slots__ = ()

    @property
    def HEADER_MAX_SIZE(self) -> int:  # type: ignore[override]
        """Sanic's name; it asks after each piece of a head."""
        if len(self.recv_buffer) < heads.HEAD_BYTES:
            return heads.HEAD_BYTES
        return heads.most_bytes(self.recv_buffer, self.protocol.app.config.get("LARGE_HEADS"))


class Connection(HttpProtocol):
    """Sanic's protocol of one connection; `ended` is called when it is over.

    A head has a deadline from its first byte to its last. Sanic's own begins anew with every byte.
    """

    HTTP_CLASS = _Http

    __slots__ = ("_ended", "_head_began_s", "_turned_away")

    def __init__(self, *, ended: Callable[[], None], turned_away: Callable[[str], None], **parts: Any) -> None:
        super().__init__(**parts)
        self._ended = ended
        self._turned_away = turned_away
        self._head_began_s = 0.0

    async def receive_more(self) -> None:
        """Sanic waits for more: for a request, for the rest of a head, or for a body."""
        if self._http.stage is not Stage.REQUEST:
            self._head_began_s = 0.0
        elif not self._head_began_s:
            self._head_began_s = time.monotonic()
        await super().receive_more()  # type: ignore[no-untyped-call]

    def head_read(self) -> None:
        """A head is complete; what stands behind it may be the beginning of another one."""
        self._head_began_s = 0.0

    def check_timeouts(self) -> None:
        """Sanic's, which look at the time of the last byte."""
        began_s = self._head_began_s
        if began_s and time.monotonic() - began_s > self.request_timeout:
            self._time = began_s
        reason = self._too_late() if self._task else None
        if reason is not None:
            self._turned_away(reason)
        super().check_timeouts()  # type: ignore[no-untyped-call]

    def _too_late(self) -> str | None:
        """Which setting Sanic will end the connection by, as mover/front/counts.py names it."""
        waited_s = time.monotonic() - self._time
        if self._http.stage is Stage.IDLE and waited_s > self.keep_alive_timeout:
            return "keep_alive_s"
        return "head_s" if self._http.stage is Stage.REQUEST and waited_s > self.request_timeout else None

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        super().connection_lost(exc)  # type: ignore[no-untyped-call]
        self._ended()


class Connections:
    """An app's connections, which somebody else accepts."""

    def __init__(self, app: Sanic[Any, Any], turned_away: Callable[[str], None]) -> None:
        self._app = app
        self._turned_away = turned_away
        self._open: set[Any] = set()

    async def start(self) -> None:
        """What Sanic does before it serves."""
        server: Any = AsyncioServer(self._app, asyncio.get_running_loop(), None, self._open)
        await server.startup()
        await server.before_start()
        await server.after_start()

    def make(self, ended: Callable[[], None]) -> Connection:
        """The protocol of a connection that was accepted; `ended` is called when it is over."""
        loop = asyncio.get_running_loop()
        parts: Any = {"loop": loop, "app": self._app, "connections": self._open, "signal": Signal()}
        return Connection(ended=ended, turned_away=self._turned_away, **parts)

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._open))

    def close_idle(self) -> None:
        """Close those that have no request under way; the others are told with their answer."""
        for connection in self:
            if not connection.close_if_idle() and connection.http is not None:
                connection.http.keep_alive = False
