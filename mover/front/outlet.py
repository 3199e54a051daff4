"""The client's side of a response body: writes memory to the client without a buffer in between.

The body of a GET goes from the slot to the socket by `send(2)` on a duplicate of the connection's descriptor
while Sanic's transport has nothing to write. So a slot is free when the call returns, and a client that does
not read holds none: what was not sent can be read from the image again. Over TLS it is encrypted from the slot,
with the same effect.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from abc import ABC, abstractmethod

from sanic import Request

from mover.front import sanic_seam
from mover.front.errors import ClientGone
from mover.front.pace import Pace
from mover.front.tls import TlsTransport

ZEROS = memoryview(bytes(256 * 1024))
ZERO_VIEWS = 8
# Waiting for the transport's last bytes: there is no event for them.
LOOK_S = 0.001
LOOK_LATER_S = 0.02


def outlet(request: Request, pace: Pace) -> Outlet:
    """The way out for a request's body. Raises ClientGone."""
    tls = sanic_seam.tls(request)
    return PlainOutlet(request, pace) if tls is None else TlsOutlet(request, pace, tls)


class Outlet(ABC):
    """One response body on its way out; `close` it before anybody else writes to the connection."""

    def __init__(self, request: Request, pace: Pace) -> None:
        self._request = request
        self._noted = sanic_seam.noted(request)
        self._transport = sanic_seam.transport(request)
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        if self._transport.is_closing():
            raise ClientGone

    async def begin(self) -> None:
        """Wait until everything that the transport had to write is out."""
        deadline = self._loop.time() + self._pace.patience_s
        pause_s = LOOK_S
        while self._transport.get_write_buffer_size():
            if self._loop.time() > deadline:
                raise ClientGone(slow=True)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LOOK_LATER_S)

    @abstractmethod
    def send(self, *views: bytes | memoryview) -> int:
        """Write what the client takes now; the number of bytes. Raises ClientGone."""

    async def writable(self) -> None:
        """Wait until the client has read something. Raises ClientGone when it does not, or is too slow."""
        began_ns = time.monotonic_ns()
        try:
            async with asyncio.timeout(self._pace.left_s):
                await self._room()
        except TimeoutError:
            raise ClientGone(slow=True) from None
        finally:
            self._noted.account.client.since(began_ns)
        self._pace.waited((time.monotonic_ns() - began_ns) / 1e9)
        sanic_seam.progress(self._request)

    @abstractmethod
    async def _room(self) -> None:
        """Wait until `send` can write something, or raises."""

    @abstractmethod
    async def finish(self) -> None:
        """The body is written: wait until the connection may be closed. Raises ClientGone."""

    @abstractmethod
    def close(self) -> None:
        """Give the connection back."""

    def send_zeros(self, length: int) -> int:
        """Write up to `length` zeros from the shared slab."""
        whole = [ZEROS] * min(ZERO_VIEWS, length // len(ZEROS))
        rest = length - len(whole) * len(ZEROS)
        if len(whole) < ZERO_VIEWS and rest:
            whole.append(ZEROS[:rest])
        return self.send(*whole)

    def moved(self, count: int) -> None:
        """So many of the bytes that were sent are the image's."""
        self._noted.account.sent(self._noted, count)

    async def send_all(self, data: bytes | memoryview) -> None:
        """Write all of `data`."""
        view = memoryview(data)
        while view:
            view = view[self.send(view) :]
            if view:
                await self.writable()


class PlainOutlet(Outlet):
    """The way to a plain socket."""

    def __init__(self, request: Request, pace: Pace) -> None:
        super().__init__(request, pace)
        descriptor = self._transport.get_extra_info("socket")
        if descriptor is None:
            raise ClientGone
        self._socket = socket.socket(fileno=os.dup(descriptor.fileno()))

    def send(self, *views: bytes | memoryview) -> int:
        """Write what the socket takes now."""
        try:
            sent = self._socket.sendmsg(views)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ClientGone from error
        self._pace.moved(sent)
        return sent

    async def _room(self) -> None:
        future = self._loop.create_future()
        self._loop.add_writer(self._socket.fileno(), _wake, future)
        try:
            await future
        finally:
            self._loop.remove_writer(self._socket.fileno())

    async def finish(self) -> None:
        """The socket sends what it has taken, closed or not."""

    def close(self) -> None:
        """Close the duplicate."""
        self._socket.close()


class TlsOutlet(Outlet):
    """The way to a TLS connection."""

    def __init__(self, request: Request, pace: Pace, tls: TlsTransport) -> None:
        super().__init__(request, pace)
        self._tls = tls

    def send(self, *views: bytes | memoryview) -> int:
        """Encrypt and write until the transport is full."""
        total = 0
        for view in views:
            sent = self._tls.write_some(view)
            total += sent
            if sent < len(view):
                break
        if not total and self._tls.is_closing():
            raise ClientGone
        self._pace.moved(total)
        return total

    async def _room(self) -> None:
        await sanic_seam.writable(self._request)

    async def finish(self) -> None:
        """What the transport holds would be lost if the connection were closed now."""
        await self.begin()

    def close(self) -> None:
        """There is nothing to give back."""


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
