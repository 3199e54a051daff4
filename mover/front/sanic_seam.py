"""The only file that touches Sanic's private parts, one function per thing it takes from Sanic.

Mover writes its responses itself, head and body, and takes request bodies from the transport without Sanic's
buffer in between. Sanic then has to find its stream in the state that its own response would have left.
`tests/front/test_sanic_seam.py` tests every attribute used here against the pinned version.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Any, cast

from sanic import Request, Sanic
from sanic.exceptions import BadRequest, PayloadTooLarge
from sanic.http.constants import Stage
from sanic.models.server_types import Signal
from sanic.response import HTTPResponse
from sanic.server.async_server import AsyncioServer
from sanic.server.protocols.http_protocol import HttpProtocol

from mover.front.errors import ClientGone
from mover.front.tls import TlsTransport

Headers = Sequence[tuple[str, str]]

# A refused body up to this size and time is read and dropped, so that the connection can go on.
DRAIN_BYTES = 1024 * 1024
DRAIN_S = 1.0

_STRICT_HEAD = re.compile(rb"[^\r\n\0]*(?:\r\n[^\r\n\0: \t]+:[^\r\n\0]*)*")

_VERSION = re.compile(r"\bapplication/vnd\.openstack\.images-v([12])(?![0-9])")
_VERSIONED = re.compile(rb"/v[0-9]|[^/]|/$")

_REASONS = {status.value: status.phrase for status in HTTPStatus}


class StrictRequest(Request):
    """A request whose head leaves no doubt where it ends and how long its body is.

    Sanic is more lenient: a bare LF, a blank before a colon or a length in Thai digits pass, and a proxy before us
    may read them otherwise; then a body is taken for a request (RFC 9112, 2.2, 5 and 6.3).
    """

    # Bytes of the answer are on their way; another answer cannot follow.
    answers = False

    def __init__(self, *, url_bytes: bytes, headers: Any, head: bytes = b"", **parts: Any) -> None:
        super().__init__(url_bytes=_versioned(url_bytes, headers), headers=headers, head=head, **parts)
        parts["transport"].get_protocol().head_read()
        if not _STRICT_HEAD.fullmatch(head):
            raise BadRequest("a line of the head holds CR, LF or NUL, or a header's name is empty or holds a blank")
        length = self.headers.get("content-length")
        if length is not None and not (length.isascii() and length.strip(" \t").isdigit()):
            raise BadRequest("Content-Length is no number")


def _versioned(url: bytes, headers: Any) -> bytes:
    """Glance's clients may choose the API's version by Accept instead of the path: then the path gets it."""
    accept: str = headers.get("accept", "")
    if "vnd.openstack.images-v" not in accept or _VERSIONED.match(url):
        return url
    found = _VERSION.search(accept)
    return b"/v" + found[1].encode() + url if found else url


class Connection(HttpProtocol):
    """Sanic's protocol of one connection; `ended` is called when it is over.

    A head has a deadline from its first byte to its last. Sanic's own begins anew with every byte.
    """

    __slots__ = ("_ended", "_head_began_s")

    def __init__(self, *, ended: Callable[[], None], **parts: Any) -> None:
        super().__init__(**parts)
        self._ended = ended
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
        super().check_timeouts()  # type: ignore[no-untyped-call]

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        super().connection_lost(exc)  # type: ignore[no-untyped-call]
        self._ended()


class Connections:
    """An app's connections, which somebody else accepts."""

    def __init__(self, app: Sanic[Any, Any]) -> None:
        self._app = app
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
        return Connection(ended=ended, loop=loop, app=self._app, connections=self._open, signal=Signal())

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._open))

    def close_idle(self) -> None:
        """Close those that have no request under way; the others are told with their answer."""
        for connection in self:
            if not connection.close_if_idle() and connection.http is not None:
                connection.http.keep_alive = False


class Sent(HTTPResponse):
    """A response that was written already: all that Sanic still has to do is to see it as finished."""

    def __init__(self, status: int) -> None:
        super().__init__(status=status)

    async def send(self, data: Any = None, end_stream: bool | None = None) -> None:
        """Leave the stream as Sanic's own response would."""
        http: Any = self.stream
        if http is not None and http.stage is Stage.HANDLER:
            http.response_func = None
            http.stage = Stage.IDLE


def transport(request: Request) -> asyncio.Transport:
    """The connection's transport."""
    found: Any = request.transport
    return cast(asyncio.Transport, found)


def connection(request: Request) -> Any:
    """The connection as all its requests know it; `lost` when it has ended."""
    return request.conn_info


def client(request: Request) -> str:
    """Where the request comes from: an address, or that it came over the Unix socket."""
    peer = transport(request).get_extra_info("peername")
    return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "unix"


def answers(request: Request) -> bool:
    """Whether the client may have seen a byte of the answer; that of a large body is not known here."""
    return cast(StrictRequest, request).answers


def tls(request: Request) -> TlsTransport | None:
    """The connection's transport if it speaks TLS."""
    found = request.transport
    return found if isinstance(found, TlsTransport) else None


def client_subject(request: Request) -> str | None:
    """The subject of the certificate that the client has shown; None without one, and on the Unix socket."""
    connection = tls(request)
    return None if connection is None else connection.subject


async def writable(request: Request) -> None:
    """Wait until the transport takes more, or the connection is over."""
    await _http(request).protocol._can_write.wait()


def _http(request: Request) -> Any:
    return request.stream


def configure(app: Sanic[Any, Any]) -> None:
    """Sanic's own limits: ours replace the one on responses, which would end every long body."""
    app.config.RESPONSE_TIMEOUT = 10**9
    app.config.REQUEST_MAX_SIZE = DRAIN_BYTES
    app.config.ACCESS_LOG = False


def set_patience(app: Sanic[Any, Any], head_s: float, keep_alive_s: float) -> None:
    """How long connections that are accepted from now on may take for a head, and be without a request."""
    app.config.REQUEST_TIMEOUT = head_s
    app.config.KEEP_ALIVE_TIMEOUT = keep_alive_s


def header(request: Request, name: str) -> str | None:
    """A header's value; one that stands several times is a list (RFC 9110, 5.3)."""
    values = request.headers.getall(name, None)
    return None if values is None else ", ".join(values)


def head_was_read(request: Request) -> bool:
    """False for what Sanic passes off as the request when it could not read a head, or refused what that says."""
    return bool(request.head)


def head(request: Request, status: int, headers: Headers) -> bytes:
    """A response's head; `Connection` says what the stream will do."""
    http = _http(request)
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, '')}"]
    lines += [f"{name}: {value}" for name, value in headers]
    lines.append("Connection: keep-alive" if http.keep_alive else "Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


async def reply(request: Request, status: int, headers: Headers, body: bytes = b"") -> Sent:
    """Write a whole response. The answer to HEAD has the headers of the body and not the body."""
    await settle_body(request)
    data = head(request, status, headers)
    if body and not _http(request).head_only:
        data += body
    await _send(request, data)
    return await finished(request, status)


async def _send(request: Request, data: bytes) -> None:
    """Write at the client's pace. Raises ClientGone when it takes nothing for too long."""
    cast(StrictRequest, request).answers = True
    protocol = _http(request).protocol
    if not protocol._can_write.is_set():
        try:
            async with asyncio.timeout(request.app.config.PROGRESS_S):
                await protocol._can_write.wait()
        except TimeoutError:
            raise ClientGone from None
    await protocol.send(data)


async def finished(request: Request, status: int) -> Sent:
    """The whole response is written."""
    _http(request).expecting_continue = False
    await _linger(request)
    return Sent(status)


class ChunkedBody:
    """A response whose length is not known before its end; HTTP/1.0 has no chunks, there the connection ends it."""

    def __init__(self, request: Request, status: int, headers: Headers) -> None:
        self._request = request
        self._status = status
        self._headers = list(headers)
        self._has_chunks = request.version != "1.0"
        if self._has_chunks:
            self._headers.append(("Transfer-Encoding", "chunked"))
        else:
            close_after(request)

    async def begin(self) -> None:
        """Write the head."""
        await settle_body(self._request)
        await _send(self._request, head(self._request, self._status, self._headers))

    async def send(self, data: bytes) -> None:
        """Write a piece that is not empty, at the client's pace."""
        await self._write(b"%x\r\n%b\r\n" % (len(data), data) if self._has_chunks else data)

    async def end(self) -> Sent:
        """The body is whole."""
        if self._has_chunks:
            await self._write(b"0\r\n\r\n")
        return await finished(self._request, self._status)

    async def _write(self, data: bytes) -> None:
        if not _http(self._request).head_only:
            await _send(self._request, data)


def keep_alive_for(request: Request, seconds: float) -> None:
    """This connection may be without a request for so long, and no longer."""
    protocol = _http(request).protocol
    if protocol.keep_alive_timeout != seconds:
        protocol.keep_alive_timeout = seconds
        protocol._callback_check_timeouts.cancel()
        protocol.check_timeouts()  # it looks twice in the shortest of all times, from now on


def close_after(request: Request) -> None:
    """This answer is the connection's last."""
    _http(request).keep_alive = False


def progress(request: Request) -> None:
    """The client moves: Sanic's clock for this connection starts again."""
    _http(request).protocol._time = time.monotonic()


def body_left(request: Request) -> int | None:
    """Bytes of the request's body that were not read yet; None if its end is not known (chunked)."""
    http = _http(request)
    if not http.request_body:
        return 0
    return None if http.request_body == "chunked" else http.request_bytes_left


def expects_continue(request: Request) -> bool:
    """The client waits for `100 Continue` before it sends the body."""
    return bool(_http(request).expecting_continue)


async def send_continue(request: Request) -> None:
    """Ask for the body, if the client waits to be asked."""
    http = _http(request)
    if http.expecting_continue:
        http.expecting_continue = False
        await http.protocol.send(b"HTTP/1.1 100 Continue\r\n\r\n")


def take_buffered(request: Request, most: int) -> bytes:
    """Up to `most` bytes of the body that stand in Sanic's receive buffer already."""
    buffer = _http(request).recv_buffer
    data = bytes(buffer[:most])
    del buffer[: len(data)]
    return data


def body_taken(request: Request, left: int) -> None:
    """The body was read past Sanic but for its last `left` bytes."""
    http = _http(request)
    http.request_bytes_left = left
    if not left:
        http.request_body = None


def begin_chunks(request: Request) -> bytes:
    """What stands of a chunked body in Sanic's receive buffer. Sanic leaves the head's last CRLF before it."""
    buffer = _http(request).recv_buffer
    data = bytes(buffer[2:])
    buffer.clear()
    return data


def put_back(request: Request, data: bytes) -> None:
    """What was read past the body's end is the connection's next request."""
    _http(request).recv_buffer[:0] = data


def chunked_body_taken(request: Request, whole: bool) -> None:
    """The body was read past Sanic; if not all of it, nobody can tell where it ends."""
    http = _http(request)
    http.request_bytes_left = 0
    if whole:
        http.request_body = None
    else:
        close_after(request)


async def read_body(request: Request, most: int) -> bytes | None:
    """The whole body, if it has at most `most` bytes, else None."""
    left = body_left(request)
    if left is not None and left > most:
        return None
    _http(request).request_max_size = most
    parts = []
    try:
        while (part := await _http(request).read()) is not None:
            parts.append(part)
    except PayloadTooLarge:  # only chunks can be, and Sanic gives the connection up
        return None
    return b"".join(parts)


async def settle_body(request: Request) -> None:
    """Before an answer that does not take the body: drop a small one; a large or late one costs the connection."""
    left = body_left(request)
    if left == 0:
        _http(request).request_body = None  # it takes Content-Length: 0 for a body that nobody reads, and logs an error
        return
    if left is None or left > DRAIN_BYTES or expects_continue(request):
        close_after(request)
        return
    try:
        await asyncio.wait_for(read_body(request, DRAIN_BYTES), DRAIN_S)
    except TimeoutError:
        close_after(request)


async def _linger(request: Request) -> None:
    """After an answer that left something unread: say that we are done, and let the client read the answer.

    Closing at once would reset the connection under the answer. What still comes is dropped, for a while.
    """
    http = _http(request)
    if http.keep_alive or (not http.request_body and head_was_read(request)):
        return
    http.request_body = None
    carrier = http.protocol.transport
    if carrier.can_write_eof():
        carrier.write_eof()
    try:
        async with asyncio.timeout(DRAIN_S):
            while not carrier.is_closing():
                http.recv_buffer.clear()
                await http._receive_more()
    except TimeoutError:
        pass
    http.recv_buffer.clear()


def over_unix(request: Request) -> bool:
    """The client came by the Unix socket, so it is on this host."""
    sock = transport(request).get_extra_info("socket")
    return sock is not None and sock.family == socket.AF_UNIX


def handler_protocol(request: Request) -> asyncio.Protocol:
    """Sanic's protocol object, to be put back when a body was taken past it."""
    protocol: asyncio.Protocol = _http(request).protocol
    return protocol
