"""`/images/{id}`: each method parses, asks its lane, and answers. The policy is in the rules that it calls."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Literal
from urllib.parse import quote

import msgspec
from sanic import Request

from config.log import facts
from config.settings import FrontSettings
from mover.front import asked, extents, sanic_seam
from mover.front.download import Download
from mover.front.errors import BodyBroken, ClientGone, RequestError, job_failed, lane_lost
from mover.front.link import Link
from mover.front.outlet import Outlet
from mover.front.ranges import Span
from mover.front.sanic_seam import Headers, Sent
from mover.front.upload import Upload
from mover.serve.messages import Ticket
from workers.lane import lost_format
from workers.lane.front_lane import FrontLane, LaneLost
from workers.lane.protocol import Flag, ImageFacts, Kind, Status

log = logging.getLogger(__name__)

# A body up to this size is answered with one write; a copy of it is cheaper than a descriptor of its own.
SMALL_BYTES = 64 * 1024
JSON = ("Content-Type", "application/json")

# What a browser asks for before it lets a script send and see more than the plainest headers.
CORS = (
    ("Access-Control-Allow-Headers", "Content-Range, Content-Type, If-Range, Range"),
    ("Access-Control-Expose-Headers", "Accept-Ranges, Content-Disposition, Content-Range, Retry-After"),
)
READING = "GET, HEAD, OPTIONS"
WRITING = "GET, HEAD, PUT, PATCH, POST, OPTIONS"


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
        ticket = self._link.tickets.get(asked.decode_id(image_id))
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
            headers += [("Access-Control-Allow-Origin", self._settings.cors_origin), *CORS]
        return headers

    # -- GET and HEAD ----------------------------------------------------------------------------------------

    async def get(self, request: Request, image_id: str) -> Sent:
        """The image, or a range of it."""
        ticket = self._ticket(request, image_id)
        async with self._lane(ticket) as (lane, image):
            span, status, headers = self._answer(request, ticket, image)
            if request.method == "HEAD" or span.length == 0:
                return await sanic_seam.reply(request, status, headers)
            if span.length <= SMALL_BYTES:
                return await self._get_small(request, lane, span, status, headers)
            return await self._get_large(request, ticket, lane, span, status, headers)

    def _answer(self, request: Request, ticket: Ticket, image: ImageFacts) -> tuple[Span, int, Headers]:
        """What a GET asks for: the bytes, the status and the headers."""
        size = image.size_bytes
        wanted = sanic_seam.header(request, "range")
        headers = self.headers(ticket, image)
        span, status = Span(0, size), 200
        if wanted is not None and "if-range" not in request.headers:  # no validator of ours can match
            span, status = asked.range_to_read(wanted, size), 206
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

    async def _get_large(
        self, request: Request, ticket: Ticket, lane: FrontLane, span: Span, status: int, headers: Headers
    ) -> Sent:
        await sanic_seam.settle_body(request)
        outlet = Outlet(request, self._settings.progress_s)
        download = Download(lane, outlet, span, sanic_seam.head(request, status, headers))
        try:
            await download.run()
        except ClientGone:
            raise
        except Exception as error:  # a bug of ours, too: no answer of another kind may follow bytes of the image
            if download.began:
                raise BodyBroken(repr(error), ticket.version, download.sent) from error
            raise
        finally:
            outlet.close()
        _log_transfer("read", ticket, span.offset, span.length)
        return await sanic_seam.finished(request, status)

    # -- PUT -------------------------------------------------------------------------------------------------

    async def put(self, request: Request, image_id: str) -> Sent:
        """Write the body to the image."""
        ticket = self._ticket(request, image_id)
        if "range" in request.headers:
            raise RequestError(400, "PUT takes Content-Range, not Range")
        length = asked.content_length(request)
        flush = asked.flag(request, "flush", True)
        async with self._lane(ticket) as (lane, image):
            self._writable(ticket, image)
            span = asked.target(request, length, image.size_bytes)
            asked.check_flush(image, flush)
            if length:
                flags = Flag.MAY_HOLE if ticket.sparse else Flag.NONE
                upload = Upload(lane, request, span, ticket.version, flags, self._settings.progress_s)
                await upload.run()
            if flush:
                await self._flush(request, lane, ticket)
            _log_transfer("write", ticket, span.offset, length)
            return await self._written(request, ticket, image, length, flush)

    async def _written(self, request: Request, ticket: Ticket, image: ImageFacts, count: int, flushed: bool) -> Sent:
        return await send_json(request, 200, Written(count, flushed), self.headers(ticket, image))

    async def _flush(self, request: Request, lane: FrontLane, ticket: Ticket) -> None:
        completion = await lane.run(Kind.FLUSH, transfer=ticket.version)
        if completion.status is Status.LOST:
            await self._tell_lost(request, lane, ticket)
        elif completion.status is not Status.OK:
            raise job_failed(completion, "flush", 0, 0)

    async def _tell_lost(self, request: Request, lane: FrontLane, ticket: Ticket) -> None:
        """Tell the client, once, which confirmed writes are gone with the server that had them.

        They are struck off the ledger only after the answer is written: told twice is better than never.
        """
        holder = lane.slots.enter()
        try:
            slot = await lane.take_slot(holder)
            completion = await lane.run(Kind.LOST, slot=slot, transfer=ticket.version)
            answer = bytes(lane.views[slot][: completion.value])
            lane.give_back(slot)
        finally:
            lane.slots.leave(holder)
        if completion.status is not Status.OK:
            raise job_failed(completion, "flush", 0, 0)
        losses, lost = lost_format.unpack(memoryview(answer))
        if not lost:
            return  # another flush of this transfer has told it meanwhile
        message = "the NBD server was lost with writes that were not flushed; send these ranges again"
        await send_error(request, RequestError(500, message, lost=lost))
        await lane.run(Kind.TOLD, losses, transfer=ticket.version)
        raise Answered

    # -- PATCH and POST --------------------------------------------------------------------------------------

    async def patch(self, request: Request, image_id: str) -> Sent:
        """Zero a range, or flush: JSON. With Range and a binary body: write."""
        ticket = self._ticket(request, image_id)
        if asked.is_binary(request):
            return await self._patch_binary(request, ticket)
        async with self._lane(ticket) as (lane, image):
            self._writable(ticket, image)
            patch = await asked.read_patch(request, self._settings.progress_s)
            if patch.op == "flush":
                asked.check_flush(image, True)
                await self._flush(request, lane, ticket)
                return await self._written(request, ticket, image, 0, True)
            if patch.op != "zero":
                raise RequestError(400, f"op {patch.op[:80]!r} is not 'zero' or 'flush'")
            return await self._zero(request, lane, image, ticket, patch)

    async def _zero(
        self, request: Request, lane: FrontLane, image: ImageFacts, ticket: Ticket, patch: asked.Patch
    ) -> Sent:
        if patch.size is None:
            raise RequestError(400, "zero needs a size")
        if patch.offset + patch.size > image.size_bytes:
            what = f"zero of {patch.size} bytes at offset {patch.offset}"
            limit = asked.unsatisfied(image.size_bytes)
            raise RequestError(416, f"{what} ends after the image of {image.size_bytes}", limit)
        asked.check_flush(image, patch.flush)
        if patch.size:
            flags = Flag.MAY_HOLE if ticket.sparse else Flag.NONE
            completion = await lane.run(Kind.ZERO, patch.offset, patch.size, transfer=ticket.version, flags=flags)
            if completion.status is not Status.OK:
                raise job_failed(completion, "zero", patch.offset, patch.size)
        if patch.flush:
            await self._flush(request, lane, ticket)
        return await self._written(request, ticket, image, patch.size, patch.flush)

    async def _patch_binary(self, request: Request, ticket: Ticket) -> Sent:
        length = asked.content_length(request)
        flush = asked.flag(request, "flush", False)
        async with self._lane(ticket) as (lane, image):
            self._writable(ticket, image)
            span = asked.range_to_write(request, length, image.size_bytes)
            asked.check_flush(image, flush)
            upload = Upload(lane, request, span, ticket.version, Flag.NONE, self._settings.progress_s)
            await upload.run()
            if flush:
                await self._flush(request, lane, ticket)
            return await self._written(request, ticket, image, length, flush)

    async def post_flush(self, request: Request, image_id: str) -> Sent:
        """Flush the image."""
        ticket = self._ticket(request, image_id)
        async with self._lane(ticket) as (lane, image):
            self._writable(ticket, image)
            asked.check_flush(image, True)
            await self._flush(request, lane, ticket)
            return await self._written(request, ticket, image, 0, True)

    # -- extents and options ---------------------------------------------------------------------------------

    async def get_extents(self, request: Request, image_id: str) -> Sent:
        """The image's extents as a JSON array, streamed."""
        ticket = self._ticket(request, image_id)
        async with self._lane(ticket) as (lane, image):
            context = asked.context(request, ticket, image)
            holder = lane.slots.enter()
            try:
                runs = extents.runs(lane, holder, image.size_bytes, context)
                # The first window before the head: what fails here still has a status.
                first: list[extents.Run] = await anext(runs, [])
                return await self._stream(request, ticket, self.headers(ticket, image), first, runs, context)
            finally:
                lane.slots.leave(holder)

    async def _stream(
        self,
        request: Request,
        ticket: Ticket,
        headers: list[tuple[str, str]],
        first: list[extents.Run],
        runs: AsyncIterator[list[extents.Run]],
        context: int,
    ) -> Sent:
        stream = sanic_seam.ChunkedBody(request, 200, [*headers, JSON])
        await stream.begin()
        last = first[-1:]
        try:
            await stream.send(b"[" + b",".join(extents.render(first, context)))
            async for found in runs:
                last = found[-1:]
                await stream.send(b"," + b",".join(extents.render(found, context)))
        except (LaneLost, RequestError) as error:
            raise BodyBroken(str(error), ticket.version, sum(last[0][:2]) if last else 0) from error
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
    """Every error: a status and `{"error": ...}`."""
    answer: dict[str, object] = {"error": error.message}
    if error.lost is not None:
        answer["lost"] = [list(span) for span in error.lost]
    return await send_json(request, error.status, answer, error.headers)


def _disposition(filename: str | None) -> str:
    if filename is None:
        return "attachment"
    plain = "".join(char if 32 <= ord(char) < 127 and char not in '"\\%' else "_" for char in filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def _log_transfer(op: str, ticket: Ticket, offset: int, length: int) -> None:
    """One line for each body that moved; small GETs are too many for that."""
    log.info("transferred", extra=facts(transfer=ticket.version, op=op, offset=offset, length=length))


async def break_off(request: Request, error: BodyBroken | ClientGone) -> Sent:
    """No client may take a short body for a whole one: the connection ends here."""
    if isinstance(error, BodyBroken):
        log.error("broken off", extra=facts(transfer=error.transfer, offset=error.offset, reason=str(error)))
    sanic_seam.close_after(request)
    sanic_seam.transport(request).abort()
    return Sent(0)
