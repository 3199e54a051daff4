"""`/images/{id}`: each method parses, asks its lane, and answers. The policy is in the rules that it calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Annotated, Literal
from urllib.parse import quote, unquote_to_bytes

import msgspec
from msgspec import Meta
from sanic import Request

from config.log import facts
from config.settings import FrontSettings
from mover.front import extents, sanic_seam
from mover.front.download import Download
from mover.front.errors import BodyBroken, ClientGone, RequestError, job_failed, lane_lost
from mover.front.link import Link
from mover.front.outlet import Outlet
from mover.front.ranges import (
    BadRange,
    Span,
    Unsatisfiable,
    parse_content_range,
    parse_range,
    parse_range_to_write,
)
from mover.front.sanic_seam import Headers, Sent
from mover.front.upload import Upload
from mover.serve.messages import Ticket
from workers.lane.extents_format import DIRTY, unpack
from workers.lane.front_lane import FrontLane, LaneLost
from workers.lane.protocol import Flag, ImageFacts, Kind, Status

log = logging.getLogger(__name__)

# A body up to this size is answered with one write; a copy of it is cheaper than a descriptor of its own.
SMALL_BYTES = 64 * 1024
JSON_BYTES = 64 * 1024
ID_BYTES = 255
JSON = ("Content-Type", "application/json")

READING = "GET, HEAD, OPTIONS"
WRITING = "GET, HEAD, PUT, PATCH, POST, OPTIONS"

YES = frozenset({"y", "yes", "true", "1"})
NO = frozenset({"n", "no", "false", "0"})


class Patch(msgspec.Struct, forbid_unknown_fields=False):
    """The JSON body of PATCH. Sizes and offsets in bytes."""

    op: str
    offset: Annotated[int, Meta(ge=0)] = 0
    size: Annotated[int, Meta(ge=0)] | None = None
    flush: bool = False


class Written(msgspec.Struct):
    """The answer to a write."""

    bytes_written: int
    flushed: bool
    ok: Literal[True] = True


class Images:
    """The handlers, on one link."""

    def __init__(self, link: Link, settings: FrontSettings, unix_socket: str | None) -> None:
        self._link = link
        self._settings = settings
        self._unix_socket = unix_socket

    # -- tickets and lanes -----------------------------------------------------------------------------------

    def _ticket(self, request: Request, image_id: str) -> Ticket:
        ticket = self._link.tickets.get(decode_id(image_id))
        if ticket is None:
            raise RequestError(404, "unknown image_id")
        return ticket

    def _lane(self, ticket: Ticket) -> _LaneInUse:
        return _LaneInUse(self, self._link, ticket)

    def _writable(self, ticket: Ticket, image: ImageFacts) -> None:
        if not ticket.write:
            raise RequestError(403, "the ticket does not allow writing", [("Allow", READING)])
        if image.read_only:
            raise RequestError(403, "the export is read-only", [("Allow", READING)])

    def headers(self, ticket: Ticket, image: ImageFacts) -> list[tuple[str, str]]:
        return self._common(WRITING if ticket.write and not image.read_only else READING)

    def _common(self, methods: str) -> list[tuple[str, str]]:
        headers = [("Accept-Ranges", "bytes"), ("Access-Control-Allow-Methods", methods)]
        if self._settings.cors_origin:
            headers.append(("Access-Control-Allow-Origin", self._settings.cors_origin))
        return headers

    # -- GET and HEAD ----------------------------------------------------------------------------------------

    async def get(self, request: Request, image_id: str) -> Sent:
        """The image, or a range of it."""
        ticket = self._ticket(request, image_id)
        await sanic_seam.settle_body(request)
        async with self._lane(ticket) as (lane, image):
            span, status, headers = self._answer(request, ticket, image)
            if request.method == "HEAD" or span.length == 0:
                return await sanic_seam.reply(request, status, headers)
            if span.length <= SMALL_BYTES:
                return await self._get_small(request, lane, span, status, headers)
            return await self._get_large(request, lane, span, status, headers)

    def _answer(self, request: Request, ticket: Ticket, image: ImageFacts) -> tuple[Span, int, Headers]:
        """What a GET asks for: the bytes, the status and the headers."""
        size = image.size_bytes
        wanted = sanic_seam.header(request, "range")
        headers = self.headers(ticket, image)
        span, status = Span(0, size), 200
        if wanted is not None and "if-range" not in request.headers:  # no validator of ours can match
            span, status = _range(wanted, size), 206
            headers.append(("Content-Range", f"bytes {span.offset}-{span.offset + span.length - 1}/{size}"))
        headers.append(("Content-Type", "application/octet-stream"))
        headers.append(("Content-Length", str(span.length)))
        headers.append(("Content-Disposition", _disposition(ticket.filename)))
        return span, status, headers

    async def _get_small(self, request: Request, lane: FrontLane, span: Span, status: int, headers: Headers) -> Sent:
        holder = lane.slots.enter()
        try:
            slot = await lane.take_slot(holder)
            completion = await lane.run(Kind.READ, span.offset, span.length, slot=slot)
            body = bytes(lane.views[slot][: span.length])
            lane.give_back(slot)
        finally:
            lane.slots.leave(holder)
        if completion.status is not Status.OK:
            raise job_failed(completion, "read", span.offset, span.length)
        return await sanic_seam.reply(request, status, headers, body)

    async def _get_large(self, request: Request, lane: FrontLane, span: Span, status: int, headers: Headers) -> Sent:
        outlet = Outlet(request, self._settings.progress_s)
        download = Download(lane, outlet, span, sanic_seam.head(request, status, headers))
        try:
            await download.run()
        except LaneLost as lost:
            if download.began:
                raise BodyBroken(lost.reason) from lost
            raise
        finally:
            outlet.close()
        return await sanic_seam.finished(request, status)

    # -- PUT -------------------------------------------------------------------------------------------------

    async def put(self, request: Request, image_id: str) -> Sent:
        """Write the body to the image."""
        ticket = self._ticket(request, image_id)
        if "range" in request.headers:
            raise RequestError(400, "PUT takes Content-Range, not Range")
        length = content_length(request)
        flush = flag(request, "flush", True)
        async with self._lane(ticket) as (lane, image):
            self._writable(ticket, image)
            span = _target(request, length, image.size_bytes)
            _check_flush(image, flush)
            if length:
                flags = Flag.MAY_HOLE if ticket.sparse else Flag.NONE
                upload = Upload(lane, request, span, ticket.version, flags, self._settings.progress_s)
                await upload.run()
            if flush:
                await self._flush(request, lane, ticket)
            return await self._written(request, ticket, image, length, flush)

    async def _written(self, request: Request, ticket: Ticket, image: ImageFacts, count: int, flushed: bool) -> Sent:
        return await send_json(request, 200, Written(count, flushed), self.headers(ticket, image))

    async def _flush(self, request: Request, lane: FrontLane, ticket: Ticket) -> None:
        completion = await lane.run(Kind.FLUSH, transfer=ticket.version)
        if completion.status is Status.LOST:
            await self._tell_lost(request, lane, ticket)
        if completion.status is not Status.OK:
            raise job_failed(completion, "flush", 0, 0)

    async def _tell_lost(self, request: Request, lane: FrontLane, ticket: Ticket) -> None:
        """Tell the client, once, which confirmed writes are gone with the server that had them.

        They are struck off the ledger only after the answer is written: told twice is better than never.
        """
        holder = lane.slots.enter()
        try:
            slot = await lane.take_slot(holder)
            completion = await lane.run(Kind.LOST, slot=slot, transfer=ticket.version)
            lost = _lost_ranges(lane.views[slot][: completion.value])
            lane.give_back(slot)
        finally:
            lane.slots.leave(holder)
        if not lost:
            return
        message = "the NBD server was lost with writes that were not flushed; send these ranges again"
        await send_error(request, RequestError(500, message, lost=lost))
        await lane.run(Kind.TOLD, transfer=ticket.version)
        raise Answered

    # -- PATCH and POST --------------------------------------------------------------------------------------

    async def patch(self, request: Request, image_id: str) -> Sent:
        """Zero a range, or flush: JSON. With Range and a binary body: write."""
        ticket = self._ticket(request, image_id)
        if _is_binary(request):
            return await self._patch_binary(request, ticket)
        async with self._lane(ticket) as (lane, image):
            self._writable(ticket, image)
            patch = await _read_patch(request, self._settings.progress_s)
            if patch.op == "flush":
                _check_flush(image, True)
                await self._flush(request, lane, ticket)
                return await self._written(request, ticket, image, 0, True)
            if patch.op != "zero":
                raise RequestError(400, f"op {patch.op[:80]!r} is not 'zero' or 'flush'")
            return await self._zero(request, lane, image, ticket, patch)

    async def _zero(self, request: Request, lane: FrontLane, image: ImageFacts, ticket: Ticket, patch: Patch) -> Sent:
        if patch.size is None:
            raise RequestError(400, "zero needs a size")
        if patch.offset + patch.size > image.size_bytes:
            what = f"zero of {patch.size} bytes at offset {patch.offset}"
            limit = _unsatisfied(image.size_bytes)
            raise RequestError(416, f"{what} ends after the image of {image.size_bytes}", limit)
        _check_flush(image, patch.flush)
        if patch.size:
            flags = Flag.MAY_HOLE if ticket.sparse else Flag.NONE
            completion = await lane.run(Kind.ZERO, patch.offset, patch.size, transfer=ticket.version, flags=flags)
            if completion.status is not Status.OK:
                raise job_failed(completion, "zero", patch.offset, patch.size)
        if patch.flush:
            await self._flush(request, lane, ticket)
        return await self._written(request, ticket, image, patch.size, patch.flush)

    async def _patch_binary(self, request: Request, ticket: Ticket) -> Sent:
        length = content_length(request)
        flush = flag(request, "flush", False)
        async with self._lane(ticket) as (lane, image):
            self._writable(ticket, image)
            span = _range_to_write(request, length, image.size_bytes)
            _check_flush(image, flush)
            upload = Upload(lane, request, span, ticket.version, Flag.NONE, self._settings.progress_s)
            await upload.run()
            if flush:
                await self._flush(request, lane, ticket)
            return await self._written(request, ticket, image, length, flush)

    async def post_flush(self, request: Request, image_id: str) -> Sent:
        """Flush the image."""
        ticket = self._ticket(request, image_id)
        await sanic_seam.settle_body(request)
        async with self._lane(ticket) as (lane, image):
            self._writable(ticket, image)
            _check_flush(image, True)
            await self._flush(request, lane, ticket)
            return await self._written(request, ticket, image, 0, True)

    # -- extents and options ---------------------------------------------------------------------------------

    async def get_extents(self, request: Request, image_id: str) -> Sent:
        """The image's extents as a JSON array, streamed."""
        ticket = self._ticket(request, image_id)
        await sanic_seam.settle_body(request)
        async with self._lane(ticket) as (lane, image):
            context = _context(request, ticket, image)
            holder = lane.slots.enter()
            try:
                runs = extents.runs(lane, holder, image.size_bytes, context)
                # The first window before the head: what fails here still has a status.
                first: list[extents.Run] = await anext(runs, [])
                return await self._stream(request, self.headers(ticket, image), first, runs, context)
            finally:
                lane.slots.leave(holder)

    async def _stream(
        self,
        request: Request,
        headers: list[tuple[str, str]],
        first: list[extents.Run],
        runs: AsyncIterator[list[extents.Run]],
        context: int,
    ) -> Sent:
        stream = sanic_seam.ChunkedBody(request, 200, [*headers, JSON])
        await stream.begin()
        try:
            await stream.send(b"[" + b",".join(extents.render(first, context)))
            async for found in runs:
                await stream.send(b"," + b",".join(extents.render(found, context)))
        except (LaneLost, RequestError) as error:
            raise BodyBroken(str(error)) from error
        await stream.send(b"]")
        return await stream.end()

    async def options(self, request: Request, image_id: str) -> Sent:
        """What the image and the ticket really allow; `*` for what the server can do."""
        if image_id == "*":
            everything = {"features": ["extents", "flush", "zero"], "unix_socket": self._unix_socket}
            return await send_json(request, 200, everything, [*self._common(WRITING), ("Allow", WRITING)])
        ticket = self._ticket(request, image_id)
        async with self._lane(ticket) as (_, image):
            writable = ticket.write and not image.read_only
            features = ["extents"]
            if writable:
                features += ["flush", "zero"] if image.can_flush else ["zero"]
            answer = {
                "features": features,
                "unix_socket": self._unix_socket,
                "max_readers": 8,
                "max_writers": 8 if writable else 0,
            }
            headers = [*self.headers(ticket, image), ("Allow", WRITING if writable else READING)]
            return await send_json(request, 200, answer, headers)


class _LaneInUse:
    """`async with`: a lane and what is known of its image, for one request; its errors become the client's.

    A class, since a generator would cost a small GET a twentieth of its time.
    """

    __slots__ = ("_image", "_images", "_lane", "_link", "_ticket")

    def __init__(self, images: Images, link: Link, ticket: Ticket) -> None:
        self._images = images
        self._link = link
        self._ticket = ticket

    async def __aenter__(self) -> tuple[FrontLane, ImageFacts]:
        try:
            self._lane, self._image = await self._link.lane(self._ticket)
        except LaneLost as lost:
            raise lane_lost(lost) from lost
        return self._lane, self._image

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._link.leave(self._lane)
        if isinstance(error, LaneLost):
            raise lane_lost(error) from error
        if isinstance(error, RequestError):
            error.headers = [*self._images.headers(self._ticket, self._image), *error.headers]


class Answered(Exception):
    """The request was answered already, with an error."""


# -- answers -------------------------------------------------------------------------------------------------


async def send_json(request: Request, status: int, answer: object, headers: Headers) -> Sent:
    """A JSON body."""
    body = msgspec.json.encode(answer)
    return await sanic_seam.reply(request, status, [*headers, JSON, ("Content-Length", str(len(body)))], body)


async def send_error(request: Request, error: RequestError) -> Sent:
    """Every error: a status and `{"error": ...}`; what was left of the request's body is dealt with."""
    answer: dict[str, object] = {"error": error.message}
    if error.lost is not None:
        answer["lost"] = [list(span) for span in error.lost]
    await sanic_seam.settle_body(request)
    return await send_json(request, error.status, answer, error.headers)


# -- parsing -------------------------------------------------------------------------------------------------


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


def _range(header: str, size: int) -> Span:
    try:
        return parse_range(header, size)
    except (BadRange, Unsatisfiable) as error:
        raise RequestError(416, str(error), [("Content-Range", f"bytes */{size}")]) from error


def _target(request: Request, length: int, size: int) -> Span:
    header = sanic_seam.header(request, "content-range")
    if header is None:
        if length > size:
            raise RequestError(416, f"Content-Length {length} is larger than the image of {size}", _unsatisfied(size))
        return Span(0, length)
    try:
        return parse_content_range(header, length, size)
    except BadRange as error:
        raise RequestError(400, f"Content-{error}") from error
    except Unsatisfiable as error:
        raise RequestError(416, f"Content-{error}", _unsatisfied(size)) from error


def _range_to_write(request: Request, length: int, size: int) -> Span:
    if length == 0:
        raise RequestError(400, "Content-Length must be positive")
    try:
        return parse_range_to_write(sanic_seam.header(request, "range") or "", length, size)
    except BadRange as error:
        raise RequestError(400, str(error)) from error
    except Unsatisfiable as error:
        raise RequestError(416, str(error), _unsatisfied(size)) from error


def _check_flush(image: ImageFacts, wanted: bool) -> None:
    if wanted and not image.can_flush:
        raise RequestError(501, "the NBD server of this image cannot flush; ask without flush")


def _unsatisfied(size: int) -> list[tuple[str, str]]:
    return [("Content-Range", f"bytes */{size}")]


def _disposition(filename: str | None) -> str:
    if filename is None:
        return "attachment"
    plain = "".join(char if 32 <= ord(char) < 127 and char not in '"\\%' else "_" for char in filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def _context(request: Request, ticket: Ticket, image: ImageFacts) -> int:
    """The lane's number of the asked context: 0 for allocation, else the ticket's bitmap."""
    context = request.args.get("context", "zero")
    if context == "zero":
        return 0
    if context != "dirty":
        raise RequestError(400, f"context {context[:80]!r} is not 'zero' or 'dirty'")
    if ticket.export.bitmap is None:
        raise RequestError(404, "no dirty extents: the image's URL names no bitmap")
    if ticket.export.bitmap not in image.bitmaps:
        raise RequestError(404, f"no dirty extents: the export has no bitmap {ticket.export.bitmap!r}")
    return image.bitmaps.index(ticket.export.bitmap) + 1


def _is_binary(request: Request) -> bool:
    """PATCH brings data for `Range`, not JSON. What says it is JSON is never written as data, Range or not."""
    kind = request.headers.get("content-type")
    if "range" in request.headers:
        return kind is None or not _is_json(kind)
    if kind is not None and not _is_json(kind):
        raise RequestError(415, f"Content-Type {kind[:80]!r} is not application/json, and there is no Range")
    return False


def _is_json(kind: str) -> bool:
    return kind.partition(";")[0].strip().lower() == "application/json"


async def _read_patch(request: Request, progress_s: float) -> Patch:
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


def _lost_ranges(view: memoryview) -> list[tuple[int, int]]:
    lost, at = [], 0
    for length, flags in unpack(view):
        if flags & DIRTY:
            lost.append((at, length))
        at += length
    return lost


async def break_off(request: Request, error: BodyBroken | ClientGone) -> Sent:
    """No client may take a short body for a whole one: the connection ends here."""
    if isinstance(error, BodyBroken):
        log.error("transfer broken off", extra=facts(path_bytes=len(request.path), reason=str(error)))
    sanic_seam.close_after(request)
    sanic_seam.transport(request).abort()
    return Sent(0)
