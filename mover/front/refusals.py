"""Connections that are one too many: answered and closed, without any work for them."""

from __future__ import annotations

import asyncio
import socket

from mover.front.crowd import Verdict

# The answer is written before the request is read: closed at once, it would be lost with the reset.
LINGER_S = 1.0
MOST_LINGERING = 64
DROP_BYTES = 65536

_ANSWERS = {
    Verdict.HOST_FULL: ("503 Service Unavailable", "too many connections"),
    Verdict.CLIENT_FULL: ("429 Too Many Requests", "too many connections from your address"),
}


def answer(verdict: Verdict) -> bytes:
    """The answer to a connection that is not let in."""
    status, reason = _ANSWERS[verdict]
    body = b'{"error":"%s"}' % reason.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Retry-After: 1\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


class Refusals:
    """Refused connections that still have their answer to read."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lingering: dict[socket.socket, asyncio.TimerHandle] = {}

    def refuse(self, client: socket.socket, verdict: Verdict, tls: bool) -> None:
        """Say why, and close. Over TLS that would cost a handshake: there the connection is closed at once."""
        if tls or len(self._lingering) >= MOST_LINGERING:
            client.close()
            return
        try:
            client.send(answer(verdict))
            client.shutdown(socket.SHUT_WR)
        except OSError:
            client.close()
            return
        self._lingering[client] = self._loop.call_later(LINGER_S, self._end, client)
        self._loop.add_reader(client.fileno(), self._drop, client)

    def close(self) -> None:
        """Wait for none of them any more."""
        for client in list(self._lingering):
            self._end(client)

    def _drop(self, client: socket.socket) -> None:
        try:
            if client.recv(DROP_BYTES):
                return
        except BlockingIOError:
            return
        except OSError:
            pass  # it was reset: that is an end, too
        self._end(client)

    def _end(self, client: socket.socket) -> None:
        self._lingering.pop(client).cancel()
        self._loop.remove_reader(client.fileno())
        client.close()
