"""What a request asks for, read from its path, head and JSON; RequestError says what is wrong with it."""

from __future__ import annotations

import asyncio
import re
from hashlib import sha256
from hmac import compare_digest
from typing import Annotated
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Meta
from sanic import Request

from mover.front import sanic_bodies, sanic_seam
from mover.front.dialect import Dialect
from mover.front.errors import ClientGone, RequestError
from mover.front.ranges import (
    BadRange,
    Span,
    Unsatisfiable,
    parse_content_range,
    parse_range,
    parse_range_to_write,
)
from mover.serve.messages import Ticket, Token
from workers.lane.protocol import ImageFacts

JSON_BYTES = 64 * 1024
ID_BYTES = 255
# Longer numbers than any image's size; Python refuses to read numbers of more than 4300 digits.
DIGITS_MOST = 19

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


def has_token(request: Request, token: Token) -> bool:
    """Whether the request brings this bearer token (RFC 6750)."""
    scheme, _, given = (sanic_seam.header(request, "authorization") or "").partition(" ")
    digest = sha256(token.salt + given.strip().encode("utf-8", "surrogateescape")).digest()
    return compare_digest(digest, token.digest) and scheme.lower() == "bearer"


def content_length(request: Request) -> int:
    """The body's length, which a write must tell."""
    left = sanic_bodies.body_left(request)
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


def range_to_read(header: str, size: int, dialect: Dialect) -> Span:
    """What a GET asks for."""
    try:
        return parse_range(header, size)
    except Unsatisfiable as error:
        raise RequestError(416, str(error), unsatisfied(size)) from error
    except BadRange as error:
        status = dialect.bad_range_status
        raise RequestError(status, str(error), unsatisfied(size) if status == 416 else []) from error


def target(request: Request, length: int, size: int, dialect: Dialect) -> Span:
    """Where a PUT of `length` bytes goes."""
    header = sanic_seam.header(request, "content-range")
    if header is None:
        if length > size:
            raise RequestError(416, f"Content-Length {length} is larger than the image of {size}", unsatisfied(size))
        return Span(0, length)
    try:
        return parse_content_range(header, length, size, dialect.content_range_end_counts)
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


def zeroed(patch: Patch, size: int, dialect: Dialect) -> Span:
    """What a PATCH zeroes."""
    if patch.size is None:
        raise RequestError(400, "zero needs a size")
    span = Span(patch.offset, patch.size)
    if dialect.zero_is_clamped:
        if span.offset >= size:
            raise RequestError(400, f"zero at offset {span.offset} is at or after the end (image size {size})")
        return Span(span.offset, min(span.length, size - span.offset))
    if span.offset + span.length > size:
        what = f"zero of {span.length} bytes at offset {span.offset}"
        raise RequestError(416, f"{what} ends after the image of {size}", unsatisfied(size))
    return span


def is_dirty(request: Request) -> bool:
    """Whether dirty extents are asked for, or the allocation."""
    name: str = request.args.get("context", "zero")
    if name not in ("zero", "dirty"):
        raise RequestError(400, f"context {name[:80]!r} is not 'zero' or 'dirty'")
    return name == "dirty"


def bitmap(ticket: Ticket, image: ImageFacts) -> int:
    """The lane's number of the ticket's bitmap. Raises RequestError where there is none."""
    name = ticket.export.bitmap
    if name is None and ticket.dirty:
        return _only_bitmap(image)
    if name is None:
        raise RequestError(404, "no dirty extents: the image's URL names no bitmap")
    if name not in image.bitmaps:
        raise RequestError(404, f"no dirty extents: the export has no bitmap {name!r}")
    return image.bitmaps.index(name) + 1


def _only_bitmap(image: ImageFacts) -> int:
    """What imageio means by a dirty ticket: whatever bitmap the export has, if that leaves no choice."""
    if len(image.bitmaps) != 1:
        raise RequestError(404, f"no dirty extents: the export has {len(image.bitmaps)} bitmaps, and must have one")
    return 1


def window(request: Request, size: int) -> Span:
    """The part of the image whose extents are asked for: all of it, or `start=` and `length=`, cut at the end."""
    start = number(request, "start", 0)
    if start > size:
        raise RequestError(416, f"start={start} is after the end (image size {size})", unsatisfied(size))
    return Span(start, min(number(request, "length", size - start), size - start))


def number(request: Request, name: str, default: int) -> int:
    """A number of the query, not negative."""
    text = request.args.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= DIGITS_MOST):
        raise RequestError(400, f"{name}={text[:80]!r} is not a number of at most {DIGITS_MOST} digits")
    return int(text)


def wants_lines(request: Request) -> bool:
    """The client takes one JSON object a line, and said so."""
    accepted = (sanic_seam.header(request, "accept") or "").lower().split(",")
    return any(_is_accepted(kind) for kind in accepted)


def _is_accepted(kind: str) -> bool:
    name, *parameters = (part.strip() for part in kind.split(";"))
    weights = [part.removeprefix("q=") for part in parameters if part.startswith("q=")]
    return name == "application/x-ndjson" and not any(re.fullmatch(r"0(\.0*)?", weight) for weight in weights)


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


async def read_patch(request: Request, progress_s: float, dialect: Dialect) -> Patch:
    """The JSON of a PATCH. Raises ClientGone when it does not come in time."""
    try:
        async with asyncio.timeout(progress_s):
            body = await sanic_bodies.read_body(request, JSON_BYTES)
    except TimeoutError:
        raise ClientGone(slow=True) from None
    if body is None:
        raise RequestError(400, f"the JSON body is larger than {JSON_BYTES} bytes")
    try:
        return msgspec.json.decode(body, type=Patch, strict=not dialect.numbers_may_be_text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, f"bad JSON: {error}") from error
