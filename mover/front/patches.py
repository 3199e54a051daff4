"""PATCH and POST: zeroing, flushing, writing a range."""

from __future__ import annotations

from sanic import Request

from mover.front import asked
from mover.front.admission import Use
from mover.front.errors import RequestError, job_failed
from mover.front.flushing import flush
from mover.front.jobs import run_while_wanted
from mover.front.sanic_seam import Sent
from mover.front.upload import Upload
from mover.front.visit import Door, Visit
from mover.serve.messages import Ticket
from workers.lane.protocol import Flag, Kind, Status


class Patches:
    """The handlers of `PATCH /images/{id}` and `POST /images/{id}/flush`."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def patch(self, request: Request, image_id: str) -> Sent:
        """Zero a range, or flush: JSON. With Range and a binary body: write."""
        ticket = await self._door.ticket(request, image_id)
        if asked.is_binary(request):
            return await self._write(request, ticket)
        async with self._door.visit(request, ticket, Use.ASK) as visit:
            visit.check_writable()
            visit.check_block_device("PATCH")
            patch = await asked.read_patch(request, visit.patience_s, visit.dialect)
            if patch.op == "flush":
                return await self._flush(visit)
            if patch.op != "zero":
                raise RequestError(400, f"op {patch.op[:80]!r} is not 'zero' or 'flush'")
            wants_flush = asked.flag(request, "flush", patch.flush)
            await visit.admit(Use.WRITE)
            return await self._zero(visit, patch, wants_flush)

    async def post_flush(self, request: Request, image_id: str) -> Sent:
        """Flush the image."""
        ticket = await self._door.ticket(request, image_id)
        async with self._door.visit(request, ticket, Use.ASK) as visit:
            visit.check_writable()
            return await self._flush(visit)

    async def _flush(self, visit: Visit) -> Sent:
        asked.check_flush(visit.image, True)
        await flush(visit)
        return await visit.send_written(0, True)

    async def _zero(self, visit: Visit, patch: asked.Patch, wants_flush: bool) -> Sent:
        span = asked.zeroed(patch, visit.image.size_bytes, visit.dialect)
        asked.check_flush(visit.image, wants_flush)
        if span.length:
            completion = await run_while_wanted(
                visit.lane, Kind.ZERO, span.offset, span.length, transfer=visit.ticket.transfer, flags=visit.zeroing
            )
            if completion.status is not Status.OK:
                raise job_failed(completion, "zero", span.offset, span.length)
            visit.has_moved(span)
        if wants_flush:
            await flush(visit)
        return await visit.send_written(span.length, wants_flush)

    async def _write(self, request: Request, ticket: Ticket) -> Sent:
        length = asked.content_length(request)
        wants_flush = asked.flag(request, "flush", False)
        async with self._door.visit(request, ticket, Use.WRITE) as visit:
            visit.check_writable()
            visit.check_block_device("PATCH")
            span = asked.range_to_write(request, length, visit.image.size_bytes)
            asked.check_flush(visit.image, wants_flush)
            upload = Upload(visit.lane, request, span, ticket.transfer, Flag.NONE, visit.pace())
            visit.moving = upload
            await upload.run()
            if wants_flush:
                await flush(visit)
            return await visit.send_written(length, wants_flush)
