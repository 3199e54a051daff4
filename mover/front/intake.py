"""The client's side of a request body: the kernel copies it from the socket straight into the slots.

For the time of the body this is the connection's protocol, in the place of Sanic's. `get_buffer` is the slot, so
there is no buffer in between; it is never longer than what is left of the body, so the next request on the
connection stays in the socket.
"""

from __future__ import annotations

import socket
import time
from typing import Protocol

from sanic import Request

from mover.front import sanic_bodies, sanic_seam
from mover.front.borrowed import Borrowed
from mover.front.errors import RequestError

# A fast client's bytes are waited for until there are so many: half the wake-ups, a sixth off a PUT's time.
BATCH_BYTES = 256 * 1024
# Over TCP only: Unix sockets do not wait.
_WAITING_FAMILIES = (socket.AF_INET, socket.AF_INET6)


class Filler(Protocol):
    """Who gives room for the body."""

    def filled(self) -> memoryview | None:
        """The room given before is full; the next one, or None to wait for `give`."""


class Intake(Borrowed):
    """Takes `length` bytes of a request's body into rooms that `filler` gives."""

    def __init__(self, request: Request, length: int, filler: Filler) -> None:
        super().__init__(request)
        self._tls = sanic_seam.tls(request)
        self._filler = filler
        self._length = self._left = length
        self._room: memoryview | None = None
        self._at = 0
        self._batch = 1
        self._eager = False
        self.fault: RequestError | None = None
        self.progressed_s = time.monotonic()

    @property
    def left(self) -> int:
        """Bytes of the body that have not come yet."""
        return self._left

    @property
    def over(self) -> bool:
        """All of the body has come."""
        return not self._left

    @property
    def hungry(self) -> bool:
        """There is more to come and no room for it."""
        return self._room is None and self._left > 0

    @property
    def taken(self) -> int:
        """Bytes of the body that have come."""
        return self._length - self._left

    @property
    def has_room(self) -> bool:
        """The client may send."""
        return self._room is not None

    @property
    def filled(self) -> int:
        """Bytes in the room that was given last, which is not full."""
        return self._at

    def begin(self) -> None:
        """Take the connection over; nothing is read until `give`."""
        self._pause()
        self._transport.set_protocol(self)

    def end(self) -> None:
        """Give the connection back to Sanic: what stands in the socket is its next request, or a body refused."""
        self._room = None
        self._wait_for(1)
        self._transport.set_protocol(self._before)
        sanic_bodies.body_taken(self._request, self._left)
        self._resume()

    def give(self, room: memoryview) -> None:
        """Room for the next bytes: first those that Sanic's buffer has, then the socket's."""
        self._room, self._at = room, 0
        self.progressed_s = time.monotonic()  # until now there was nothing that the client could do
        while self._room is not None:
            buffered = sanic_bodies.take_buffered(self._request, min(len(self._room) - self._at, self._left))
            if not buffered:
                break
            self._room[self._at : self._at + len(buffered)] = buffered
            self._advance(len(buffered))
        if self._room is not None:
            self._resume()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the transport puts what it reads: never an empty view."""
        assert self._room is not None
        return self._room[self._at : self._at + self._left]

    def buffer_updated(self, nbytes: int) -> None:
        """So much has come."""
        self._advance(nbytes)
        if self._room is None:
            self._pause()

    def _advance(self, count: int) -> None:
        self._at += count
        self._left -= count
        self._noted.account.received(self._noted, count)
        self.progressed_s = time.monotonic()
        self._wait_for(BATCH_BYTES if self._eager and self._to_come() >= BATCH_BYTES else 1)
        sanic_seam.progress(self._request)
        if self._left == 0 or (self._room is not None and self._at == len(self._room)):
            self._room, self._at = None, 0
            self._eager = True
            self._room = self._filler.filled()

    def _to_come(self) -> int:
        """Bytes of the body that the socket still has or gets, at least: some may be past it, still encrypted."""
        return self._left - (self._tls.buffered if self._tls is not None else 0)

    def relax(self) -> None:
        """The client is slow: be woken by every byte again, until it has filled a room."""
        self._eager = False
        self._wait_for(1)

    def _wait_for(self, count: int) -> None:
        """Let the kernel wake us only when so many bytes are there."""
        if count == self._batch or self._transport.is_closing():
            return
        sock = self._transport.get_extra_info("socket")
        if sock is not None and sock.family in _WAITING_FAMILIES:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
        self._batch = count
