"""What touches the private parts of Sanic's request bodies; sanic_seam.py does so with the rest of a request.

Bodies are taken from the transport without Sanic's buffer in between, but for what stands there already.
"""

from __future__ import annotations

import asyncio
from typing import Any

from sanic import Request
from sanic.exceptions import BadRequest

from mover.front.chunks import Chunks, NotChunked, Part

# A refused body up to this size and time is read and dropped, so that the connection can go on.
DRAIN_BYTES = 1024 * 1024
DRAIN_S = 1.0


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
        http.keep_alive = False


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
        _http(request).keep_alive = False
        return
    try:
        await asyncio.wait_for(read_body(request, DRAIN_BYTES), DRAIN_S)
    except TimeoutError:
        _http(request).keep_alive = False


def _http(request: Request) -> Any:
    return request.stream
