"""What touches the private parts of Sanic's requests, one function per thing it takes from Sanic.

Mover writes its responses itself, head and body. Sanic then has to find its stream in the state that its own response
would have left. `tests/front/test_sanic_seam.py` tests every attribute used here, in sanic_bodies.py and in
sanic_connections.py against the pinned version.
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
from mover.front.errors import ClientGone
from mover.front.sanic_bodies import DRAIN_BYTES, DRAIN_S, settle_body
from mover.front.tls import TlsTransport

Headers = Sequence[tuple[str, str]]

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
            raise ClientGone(slow=True) from None
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
