"""What touches the private parts of Sanic's requests, one function per thing it takes from Sanic.

Mover writes its responses itself, head and body, and takes request bodies from the transport without Sanic's
buffer in between. Sanic then has to find its stream in the state that its own response would have left.
`tests/front/test_sanic_seam.py` tests every attribute used here and in sanic_connections.py against the pinned version.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, cast

from sanic import Request, Sanic
from sanic.exceptions import BadRequest
from sanic.http.constants import Stage
from sanic.response import HTTPResponse

from mover.front import heads
from mover.front.account import Account, AccountedRequest
from mover.front.chunks import Chunks, NotChunked, Part
from mover.front.errors import ClientGone
from mover.front.tls import TlsTransport

Headers = Sequence[tuple[str, str]]

# A refused body up to this size and time is read and dropped, so that the connection can go on.
DRAIN_BYTES = 1024 * 1024
DRAIN_S = 1.0

_VERSION = re.compile(r"\bapplication/vnd\.openstack\.images-v([12])(?![0-9])")
_VERSIONED = re.compile(rb"/v[0-9]|[^/]|/$")

_REASONS = {status.value: status.phrase for status in HTTPStatus}


class StrictRequest(AccountedRequest):
    """A request whose head leaves no doubt where it ends and how long its body is (mover/front/heads.py)."""

    # Bytes of the answer are on their way; another answer cannot follow.
    answers = False

    def __init__(self, *, url_bytes: bytes, headers: Any, head: bytes = b"", **parts: Any) -> None:
        super().__init__(url_bytes=_versioned(url_bytes, headers), headers=headers, head=head, **parts)
        self.begin()
        parts["transport"].get_protocol().head_read()
        # Without a head it is what Sanic passes off as the request when it could not read one.
        fault = heads.fault(head, "content-length" in headers or "transfer-encoding" in headers) if head else None
        if fault is not None:
            raise BadRequest(fault)


def request_class(account: Account) -> type[StrictRequest]:
    """The class of requests that this account is for."""
    return type("Request", (StrictRequest,), {"account": account})


def _versioned(url: bytes, headers: Any) -> bytes:
    """Glance's clients may choose the API's version by Accept instead of the path: then the path gets it."""
    accept: str = headers.get("accept", "")
    if "vnd.openstack.images-v" not in accept or _VERSIONED.match(url):
        return url
    found = _VERSION.search(accept)
    return b"/v" + found[1].encode() + url if found else url


class Sent(HTTPResponse):
    """A response that was written already: all that Sanic still has to do is to see it as finished."""

    def __init__(self, status: int) -> None:
        super().__init__(status=status)

    async def send(self, data: Any = None, end_stream: bool | None = None) -> None:
        """Leave the stream as Sanic's own response would."""
        http: Any = self.stream
        if http is None:
            return
        http.request.account.ended(http.request, self.status)
        if http.stage is Stage.HANDLER:
            http.response_func = None
            http.stage = Stage.IDLE


def transport(request: Request) -> asyncio.Transport:
    """The connection's transport."""
    found: Any = request.transport
    return cast(asyncio.Transport, found)


def noted(request: Request) -> AccountedRequest:
    """The request with what is noted of it."""
    return cast(AccountedRequest, request)


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


def header_values(request: Request) -> dict[str, str]:
    """All headers, by their names in lower case, as `header` gives each."""
    return {name.lower(): header(request, name) or "" for name in request.headers}


def head_was_read(request: Request) -> bool:
    """False for what Sanic passes off as the request when it could not read a head, or refused what that says."""
    return bool(request.head)


def head(request: Request, status: int, headers: Headers) -> bytes:
    """A response's head; `Connection` says what the stream will do."""
    http = _http(request)
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, '')}"]
    lines += [f"{name}: {value}" for name, value in headers]
    lines.append(f"X-Request-Id: {noted(request).request_id}")
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
    """The whole body, if it has at most `most` bytes, else None. Raises BadRequest for chunks that are none."""
    left = body_left(request)
    if left is None:
        return await _read_chunks(request, most)
    if left > most:
        return None
    http = _http(request)
    http.request_max_size = http.request_bytes  # it would count what was taken past it too
    parts = []
    while (part := await http.read()) is not None:
        parts.append(part)
    return b"".join(parts)


async def _read_chunks(request: Request, most: int) -> bytes | None:
    """Sanic takes `0x5` for a chunk's size, and any two bytes for the end of one."""
    http = _http(request)
    await send_continue(request)
    chunks, body = Chunks(), bytearray()
    view = memoryview(begin_chunks(request))
    try:
        while chunks.part is not Part.END and len(body) + chunks.left <= most:
            if not view:
                await http._receive_more()
                view = memoryview(take_buffered(request, DRAIN_BYTES))
            elif chunks.part is Part.DATA:
                data = view[: chunks.left]
                body += data
                chunks.took(len(data))
                view = view[len(data) :]
            else:
                view = view[chunks.read_line(view) :]
    except NotChunked as error:
        chunked_body_taken(request, False)
        raise BadRequest(str(error)) from error
    chunked_body_taken(request, chunks.part is Part.END)
    if chunks.part is not Part.END:
        return None
    put_back(request, bytes(view))
    return bytes(body)


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
