"""What a request asks for, read from its path, head and JSON; RequestError says what is wrong with it."""

from __future__ import annotations

import asyncio
from typing import Annotated
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Meta
from sanic import Request

from mover.front import sanic_seam
from mover.front.errors import ClientGone, RequestError
from mover.front.ranges import (
    BadRange,
    Span,
    Unsatisfiable,
    parse_content_range,
    parse_range,
    parse_range_to_write,
)
from mover.serve.messages import Ticket
from workers.lane.protocol import ImageFacts

JSON_BYTES = 64 * 1024
ID_BYTES = 255

YES = frozenset({"y", "yes", "true", "1"})
NO = frozenset({"n", "no", "false", "0"})


class Patch(msgspec.Struct, forbid_unknown_fields=False):
    """The JSON body of PATCH. Sizes and offsets in bytes."""

    op: str
    offset: Annotated[int, Meta(ge=0)] = 0
    size: Annotated[int, Meta(ge=0)] | None = None
    flush: bool = False


def decode_id(segment: str) -> str:
    """An id from its path segment, decoded once. Raises RequestError for what can be no id."""
    raw = unquote_to_bytes(segment)
    if not raw or raw in (b".", b"..") or len(raw) > ID_BYTES or any(byte in raw for byte in b"/\\\0"):
        raise RequestError(400, f"invalid image_id: one path segment of at most {ID_BYTES} bytes, no / \\ or NUL")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise RequestError(400, "invalid image_id: not UTF-8") from None


def content_length(request: Request) -> int:
    """The body's length, which a write must tell."""
    left = sanic_seam.body_left(request)
    if left is None or "content-length" not in request.headers:
        raise RequestError(400, "Content-Length required")
    return left


def flag(request: Request, name: str, default: bool) -> bool:
    """A yes or no of the query."""
    text = request.args.get(name)
    if text is None:
        return default
    if text.lower() in YES:
        return True
    if text.lower() in NO:
        return False
    raise RequestError(400, f"{name}={text[:80]!r} is not y, yes, true, 1 or n, no, false, 0")


def range_to_read(header: str, size: int) -> Span:
    """What a GET asks for; all that cannot be had is 416 in imageio's dialect."""
    try:
        return parse_range(header, size)
    except (BadRange, Unsatisfiable) as error:
        raise RequestError(416, str(error), unsatisfied(size)) from error


def target(request: Request, length: int, size: int) -> Span:
    """Where a PUT of `length` bytes goes."""
    header = sanic_seam.header(request, "content-range")
    if header is None:
        if length > size:
            raise RequestError(416, f"Content-Length {length} is larger than the image of {size}", unsatisfied(size))
        return Span(0, length)
    try:
        return parse_content_range(header, length, size)
    except BadRange as error:
        raise RequestError(400, f"Content-{error}") from error
    except Unsatisfiable as error:
        raise RequestError(416, f"Content-{error}", unsatisfied(size)) from error


def range_to_write(request: Request, length: int, size: int) -> Span:
    """Where a PATCH of `length` bytes of data goes."""
    if length == 0:
        raise RequestError(400, "Content-Length must be positive")
    try:
        return parse_range_to_write(sanic_seam.header(request, "range") or "", length, size)
    except BadRange as error:
        raise RequestError(400, str(error)) from error
    except Unsatisfiable as error:
        raise RequestError(416, str(error), unsatisfied(size)) from error


def check_flush(image: ImageFacts, wanted: bool) -> None:
    """A flush that cannot be done is refused before anything is written."""
    if wanted and not image.can_flush:
        raise RequestError(501, "the NBD server of this image cannot flush; ask without flush")


def unsatisfied(size: int) -> list[tuple[str, str]]:
    """The header that tells the image's size with a 416."""
    return [("Content-Range", f"bytes */{size}")]


def context(request: Request, ticket: Ticket, image: ImageFacts) -> int:
    """The lane's number of the asked context: 0 for allocation, else the ticket's bitmap."""
    name = request.args.get("context", "zero")
    if name == "zero":
        return 0
    if name != "dirty":
        raise RequestError(400, f"context {name[:80]!r} is not 'zero' or 'dirty'")
    if ticket.export.bitmap is None:
        raise RequestError(404, "no dirty extents: the image's URL names no bitmap")
    if ticket.export.bitmap not in image.bitmaps:
        raise RequestError(404, f"no dirty extents: the export has no bitmap {ticket.export.bitmap!r}")
    return image.bitmaps.index(ticket.export.bitmap) + 1


def is_binary(request: Request) -> bool:
    """PATCH brings data for `Range`, not JSON. What says it is JSON is never written as data, Range or not."""
    kind = request.headers.get("content-type")
    if "range" in request.headers:
        return kind is None or not _is_json(kind)
    if kind is not None and not _is_json(kind):
        raise RequestError(415, f"Content-Type {kind[:80]!r} is not application/json, and there is no Range")
    return False


def _is_json(kind: str) -> bool:
    return kind.partition(";")[0].strip().lower() == "application/json"


async def read_patch(request: Request, progress_s: float) -> Patch:
    """The JSON of a PATCH. Raises ClientGone when it does not come in time."""
    try:
        async with asyncio.timeout(progress_s):
            body = await sanic_seam.read_body(request, JSON_BYTES)
    except TimeoutError:
        raise ClientGone from None
    if body is None:
        raise RequestError(400, f"the JSON body is larger than {JSON_BYTES} bytes")
    try:
        return msgspec.json.decode(body, type=Patch)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, f"bad JSON: {error}") from error
