"""HTTP clients for tests, over TCP and over Unix sockets: whole requests, streamed ones, and the bare socket."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness.waiting import PATIENCE_S


@dataclass(frozen=True)
class Secure:
    """A TCP address where TLS is spoken, and how."""

    host: str
    port: int
    context: ssl.SSLContext


Address = tuple[str, int] | Path | Secure
Body = bytes | memoryview | Iterable[bytes] | Iterable[memoryview] | None

READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Answer:
    """A whole answer. The names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


def connect(address: Address, *, receive_buffer: int | None = None) -> socket.socket:
    """A connected socket; a small `receive_buffer` (bytes) lets the server notice a client that does not read."""
    family = socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(PATIENCE_S)
    try:
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if isinstance(address, Secure):
            sock.connect((address.host, address.port))
            # A stream that breaks off is an error, not an end.
            return address.context.wrap_socket(sock, server_hostname=address.host, suppress_ragged_eofs=False)
        sock.connect(str(address) if isinstance(address, Path) else address)
    except OSError:
        sock.close()
        raise
    return sock


class Client(http.client.HTTPConnection):
    """One keep-alive connection to a server's TCP or Unix address; a context manager."""

    def __init__(self, address: Address) -> None:
        super().__init__("localhost", timeout=PATIENCE_S)
        self._address = address

    def connect(self) -> None:
        """As http.client asks for it."""
        self.sock = connect(self._address)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(
        self, method: str, target: str, body: Body = None, headers: Mapping[str, str] | None = None, **more: str
    ) -> Answer:
        """Send a request and read the whole answer. `range="bytes=0-9"` in `more` is a header, too.

        Raises http.client.IncompleteRead, or ConnectionError, where the answer breaks off.
        """
        return self.read_answer(self.begin(method, target, body, headers, **more))

    def begin(
        self, method: str, target: str, body: Body = None, headers: Mapping[str, str] | None = None, **more: str
    ) -> http.client.HTTPResponse:
        """Send a request and read the answer's head; its body is to be read from what is returned."""
        sent = dict(headers or {}) | {name.replace("_", "-"): value for name, value in more.items()}
        self.request(method, target, body, sent)
        return self.getresponse()

    def read_answer(self, response: http.client.HTTPResponse) -> Answer:
        """Read the rest of an answer."""
        with response:
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, headers, response.read())


def ask(
    address: Address, method: str, target: str, body: Body = None, headers: Mapping[str, str] | None = None, **more: str
) -> Answer:
    """One request on a connection of its own."""
    with Client(address) as client:
        return client.ask(method, target, body, headers, **more)


def head(method: str, target: str, **headers: object) -> bytes:
    """The bytes of a request's head, for a bare socket."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def read_to_end(sock: socket.socket) -> bytes:
    """All that arrives until the other end closes; ConnectionError where it breaks off."""
    received = bytearray()
    while piece := sock.recv(READ_BYTES):
        received += piece
    return bytes(received)
