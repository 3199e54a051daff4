"""The client's side of a chunked request body: long chunks go from the socket straight into the rooms.

What stands between the data, and chunks too short to be worth a system call, is read into a scratch and copied.
"""

from __future__ import annotations

import time
from typing import Protocol

from sanic import Request

from mover.front import sanic_bodies, sanic_seam
from mover.front.borrowed import Borrowed
from mover.front.chunks import Chunks, NotChunked, Part
from mover.front.errors import RequestError

SCRATCH_BYTES = 16 * 1024
# Shorter pieces of data are copied with what stands around them.
DIRECT_BYTES = 8 * 1024


class ChunkFiller(Protocol):
    """Who gives room for the body."""

    def filled(self) -> memoryview | None:
        """The room given before is full; the next one, or None to wait for `give`."""

    def hungers(self) -> None:
        """There is data, and no room for it: `give` some."""

    def ended(self, count: int) -> None:
        """The body is over, with `count` bytes in the room given last; or it cannot be read: see `fault`."""


class ChunkedIntake(Borrowed):
    """Takes a request's body of unknown length into rooms that `filler` gives."""

    def __init__(self, request: Request, filler: ChunkFiller) -> None:
        super().__init__(request)
        self._filler = filler
        self._chunks = Chunks()
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._pending = memoryview(b"")  # read, and no room for it yet
        self._room: memoryview | None = None
        self._at = 0
        self._direct = False
        self.fault: RequestError | None = None
        self.taken = 0  # bytes of data
        self.progressed_s = time.monotonic()

    @property
    def over(self) -> bool:
        """The body has come to its end."""
        return self._chunks.part is Part.END

    @property
    def hungry(self) -> bool:
        """There is data to come and no room for it."""
        return self._room is None and self._chunks.part is Part.DATA

    @property
    def has_room(self) -> bool:
        """The client may send."""
        return self._room is not None

    @property
    def filled(self) -> int:
        """Bytes in the room that was given last, which is not full."""
        return self._at

    def begin(self) -> None:
        """Take the connection over; nothing is read until there is room for data."""
        self._pause()
        self._transport.set_protocol(self)
        self._take_in(memoryview(sanic_bodies.begin_chunks(self._request)))
        self._go_on()

    def end(self) -> None:
        """Give the connection back to Sanic, and what was read of its next request."""
        self._room = None
        self._transport.set_protocol(self._before)
        if self.over:
            sanic_bodies.put_back(self._request, bytes(self._pending))
        sanic_bodies.chunked_body_taken(self._request, self.over)
        self._resume()

    def give(self, room: memoryview) -> None:
        """Room for the next bytes."""
        self._room, self._at = room, 0
        self.progressed_s = time.monotonic()  # until now there was nothing that the client could do
        pending, self._pending = self._pending, memoryview(b"")
        self._take_in(pending)
        self._go_on()

    def relax(self) -> None:
        """The client is slow: it is read as it comes anyway."""

    def _go_on(self) -> None:
        """Read, unless there is no room, or nothing more to come."""
        if self.hungry or self.over or self.fault is not None:
            self._pause()
        else:
            self._resume()

    # -- as the transport's protocol -------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the transport puts what it reads: never an empty view."""
        left = self._chunks.left if self._chunks.part is Part.DATA else 0
        self._direct = self._room is not None and min(left, len(self._room) - self._at) >= DIRECT_BYTES
        if self._direct and self._room is not None:
            return self._room[self._at : self._at + left]
        return self._scratch

    def buffer_updated(self, nbytes: int) -> None:
        """So much has come."""
        self.progressed_s = time.monotonic()
        sanic_seam.progress(self._request)
        if self._direct:
            self._chunks.took(nbytes)
            self._advance(nbytes)
        else:
            # A copy, since what stays pending must outlive the scratch's next use.
            self._take_in(memoryview(bytes(self._scratch[:nbytes])))
        self._go_on()

    def _take_in(self, view: memoryview) -> None:
        """Go through what was read, until it ends or there is no room for more."""
        try:
            while view and not self.over:
                if self._chunks.part is not Part.DATA:
                    view = view[self._chunks.read_line(view) :]
                elif self._room is None:
                    break
                else:
                    count = min(len(view), self._chunks.left, len(self._room) - self._at)
                    self._room[self._at : self._at + count] = view[:count]
                    view = view[count:]
                    self._chunks.took(count)
                    self._advance(count)
        except NotChunked as bad:
            self.fault = RequestError(400, str(bad), closes=True)
        self._pending = view
        if self.over or self.fault is not None:
            self._filler.ended(self._at if self._room is not None else 0)
            self._room = None
        elif self.hungry:
            self._filler.hungers()

    def _advance(self, count: int) -> None:
        self._at += count
        self._noted.account.received(self._noted, count)
        self.taken += count
        if self._room is not None and self._at == len(self._room):
            self._room, self._at = None, 0
            self._room = self._filler.filled()
