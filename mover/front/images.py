"""`/images/{id}`: each method parses, asks its lane, and answers. The policy is in the rules that it calls."""

from __future__ import annotations

from urllib.parse import quote

from sanic import Request

from mover.front import asked, sanic_seam, whole_files
from mover.front.admission import Use
from mover.front.answers import send_json
from mover.front.errors import RequestError
from mover.front.flushing import flush
from mover.front.ranges import Span
from mover.front.sanic_seam import Headers, Sent
from mover.front.sending import Body, send_body
from mover.front.upload import Upload
from mover.front.visit import WRITING, Door, Visit

FEATURES = ["checksum", "extents", "flush", "zero"]


class Images:
    """The handlers of GET, HEAD, PUT and OPTIONS."""

    def __init__(self, door: Door) -> None:
        self._door = door

    # -- GET and HEAD ----------------------------------------------------------------------------------------

    async def get(self, request: Request, image_id: str) -> Sent:
        """The image, or a range of it."""
        ticket = await self._door.ticket(request, image_id)
        use = Use.ASK if request.method == "HEAD" else Use.READ
        async with self._door.visit(request, ticket, use) as visit:
            visit.check_readable()
            if not visit.is_whole_file:
                return await self._send(visit, visit.image.size_bytes)
            async with whole_files.reading(visit) as file:
                return await self._send(visit, file.size_bytes, file.session)

    async def _send(self, visit: Visit, size: int, session: int = 0) -> Sent:
        span, status, headers = self._answer(visit, size)
        if visit.request.method == "HEAD" or span.length == 0:
            return await sanic_seam.reply(visit.request, status, headers)
        body = Body(span, session, visit.ticket.transfer, visit)
        return await send_body(visit.request, visit.lane, body, status, headers, visit.pace())

    def _answer(self, visit: Visit, size: int) -> tuple[Span, int, Headers]:
        """What a GET asks for: the bytes, the status and the headers."""
        wanted = sanic_seam.header(visit.request, "range")
        headers = visit.headers()
        span, status = Span(0, size), 200
        if wanted is not None and "if-range" not in visit.request.headers:  # no validator of ours can match
            span, status = asked.range_to_read(wanted, size, visit.dialect), 206
            headers.append(("Content-Range", f"bytes {span.offset}-{span.offset + span.length - 1}/{size}"))
        headers.append(("Content-Type", "application/octet-stream"))
        headers.append(("Content-Length", str(span.length)))
        headers.append(("Content-Disposition", _disposition(visit.ticket.filename)))
        return span, status, headers

    # -- PUT -------------------------------------------------------------------------------------------------

    async def put(self, request: Request, image_id: str) -> Sent:
        """Write the body to the image."""
        ticket = await self._door.ticket(request, image_id)
        if "range" in request.headers:
            raise RequestError(400, "PUT takes Content-Range, not Range")
        length = asked.content_length(request)
        async with self._door.visit(request, ticket, Use.WRITE) as visit:
            visit.check_writable()
            wants_flush = asked.flag(request, "flush", visit.dialect.flushes_by_default)
            if visit.is_whole_file:
                return await self._replace(visit, length)
            span = asked.target(request, length, visit.image.size_bytes, visit.dialect)
            asked.check_flush(visit.image, wants_flush)
            if length:
                await self._upload(visit, span)
            if wants_flush:
                await flush(visit)
            return await visit.send_written(length, wants_flush)

    async def _replace(self, visit: Visit, length: int) -> Sent:
        if "content-range" in visit.request.headers:
            raise RequestError(400, "Content-Range is not possible for a whole file, which is replaced as a whole")
        async with whole_files.replacing(visit, length) as file:
            if length:
                await self._upload(visit, Span(0, length), file.session)
        return await visit.send_written(length, True)

    async def _upload(self, visit: Visit, span: Span, session: int = 0) -> None:
        transfer, pace = visit.ticket.transfer, visit.pace()
        upload = Upload(visit.lane, visit.request, span, transfer, visit.zeroing, pace, session)
        visit.moving = upload
        await upload.run()

    # -- OPTIONS ---------------------------------------------------------------------------------------------

    async def options(self, request: Request, image_id: str) -> Sent:
        """What the image and the ticket really allow; `*` for what the server can do."""
        unix_socket = self._door.unix_socket
        if image_id == "*":
            headers = [*self._door.headers(WRITING), ("Allow", WRITING)]
            return await send_json(request, 200, {"features": FEATURES, "unix_socket": unix_socket}, headers)
        ticket = await self._door.ticket(request, image_id)
        async with self._door.visit(request, ticket, Use.LOOK) as visit:
            visit.check_readable()
            answer = {
                "features": _features(visit),
                "unix_socket": unix_socket,
                "max_readers": self._door.admission.most(Use.READ),
                "max_writers": self._door.admission.most(Use.WRITE) if visit.writable else 0,
            }
            return await visit.send_json(answer, [("Allow", visit.methods)])


def _features(visit: Visit) -> list[str]:
    flushes = ["flush"] if visit.writable and visit.image.can_flush else []
    if visit.is_whole_file:
        return flushes
    return ["checksum", "extents", *flushes, *(["zero"] if visit.writable else [])]


def _disposition(filename: str | None) -> str:
    if filename is None:
        return "attachment"
    plain = "".join(char if 32 <= ord(char) < 127 and char not in '"\\%' else "_" for char in filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"
