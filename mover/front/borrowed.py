"""A connection that is borrowed from Sanic for the time of a request's body: what both kinds of body share."""

from __future__ import annotations

import asyncio

from sanic import Request

from mover.front import sanic_seam


class Borrowed(asyncio.BufferedProtocol):
    """The connection's protocol in the place of Sanic's, to which goes on what is not about the body."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._noted = sanic_seam.noted(request)
        self._transport = sanic_seam.transport(request)
        self._before = sanic_seam.handler_protocol(request)
        self._reading = True

    def _pause(self) -> None:
        if self._reading and not self._transport.is_closing():
            self._transport.pause_reading()
        self._reading = False

    def _resume(self) -> None:
        if not self._reading and not self._transport.is_closing():
            self._transport.resume_reading()
        self._reading = True

    def eof_received(self) -> bool:
        """The client sends no more: a body that is not whole ends the connection."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left: Sanic cancels the request."""
        self._before.connection_lost(exc)

    def pause_writing(self) -> None:
        """The transport is full."""
        self._before.pause_writing()

    def resume_writing(self) -> None:
        """The transport has room."""
        self._before.resume_writing()
