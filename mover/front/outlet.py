"""The client's side of a response body: writes memory to the socket without a buffer in between.

The body of a GET goes from the slot to the socket by `send(2)` on a duplicate of the connection's descriptor
while Sanic's transport has nothing to write. So a slot is free when the call returns, and a client that does
not read holds none: what was not sent can be read from the image again.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time

from sanic import Request

from mover.front import sanic_seam
from mover.front.errors import ClientGone

ZEROS = memoryview(bytes(256 * 1024))
ZERO_VIEWS = 8


class Outlet:
    """One response body on its way out; `close` it before anybody else writes to the connection."""

    def __init__(self, request: Request, progress_s: float) -> None:
        self._request = request
        self._noted = sanic_seam.noted(request)
        self._transport = sanic_seam.transport(request)
        self._progress_s = progress_s
        self._loop = asyncio.get_running_loop()
        descriptor = self._transport.get_extra_info("socket")
        if descriptor is None or self._transport.is_closing():
            raise ClientGone
        self._socket = socket.socket(fileno=os.dup(descriptor.fileno()))

    async def begin(self) -> None:
        """Wait until everything that the transport had to write is out."""
        deadline = self._loop.time() + self._progress_s
        while self._transport.get_write_buffer_size():
            if self._loop.time() > deadline:
                raise ClientGone
            await asyncio.sleep(0.001)

    def send(self, *views: bytes | memoryview) -> int:
        """Write what the socket takes now; the number of bytes. Raises ClientGone."""
        try:
            return self._socket.sendmsg(views)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ClientGone from error

    def send_zeros(self, length: int) -> int:
        """Write up to `length` zeros from the shared slab."""
        whole = [ZEROS] * min(ZERO_VIEWS, length // len(ZEROS))
        rest = length - len(whole) * len(ZEROS)
        if len(whole) < ZERO_VIEWS and rest:
            whole.append(ZEROS[:rest])
        return self.send(*whole)

    async def writable(self) -> None:
        """Wait until the client has read something. Raises ClientGone when it does not within the deadline."""
        began_ns = time.monotonic_ns()
        future = self._loop.create_future()
        self._loop.add_writer(self._socket.fileno(), _wake, future)
        try:
            async with asyncio.timeout(self._progress_s):
                await future
        except TimeoutError:
            raise ClientGone from None
        finally:
            self._loop.remove_writer(self._socket.fileno())
            self._noted.account.client.since(began_ns)
        sanic_seam.progress(self._request)

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

    def close(self) -> None:
        """Give the connection back."""
        self._socket.close()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
