"""`GET /images/{id}/extents`: an array, or one object a line, streamed at the client's pace."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

from sanic import Request

from config.log import facts
from mover.front import asked, extents, sanic_seam
from mover.front.admission import Use
from mover.front.errors import BodyBroken, RequestError
from mover.front.sanic_seam import Sent
from mover.front.visit import Door, Visit
from workers.lane.extents_format import Extent
from workers.lane.lane_states import LaneLost

log = logging.getLogger(__name__)

Windows = AsyncIterator[list[Extent]]


class Array:
    """Objects between brackets."""

    kind = "application/json"

    def __init__(self) -> None:
        self._before = b"["

    def join(self, rows: list[bytes]) -> bytes:
        """The next piece of the array."""
        if not rows:
            return b""
        before, self._before = self._before, b","
        return before + b",".join(rows)

    @property
    def closing(self) -> bytes:
        """What comes last."""
        return b"[]" if self._before == b"[" else b"]"


class Lines:
    """Objects of a line each, every piece of whole lines."""

    kind = "application/x-ndjson"
    closing = b""

    def join(self, rows: list[bytes]) -> bytes:
        """The next lines."""
        return b"\n".join([*rows, b""])


class Listing:
    """The handler."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def get(self, request: Request, image_id: str) -> Sent:
        """The image's extents, all of them or those of a part."""
        ticket = await self._door.ticket(request, image_id)
        async with self._door.visit(request, ticket, Use.ASK) as visit:
            visit.check_readable()
            visit.check_block_device("extents")
            dirty = asked.is_dirty(request)
            span = asked.window(request, visit.image.size_bytes)
            context, all_dirty = _context(visit) if dirty else (0, False)
            renderer = extents.Renderer(span.offset, extents.texts(visit.dialect, dirty, all_dirty))
            holder = visit.lane.slots.enter()
            try:
                windows = extents.windows(visit.lane, holder, span, context)
                # The first window before the head: what fails here still has a status.
                first: list[Extent] = await anext(windows, [])
                return await _stream(visit, renderer, first, windows)
            finally:
                visit.lane.slots.leave(holder)


def _context(visit: Visit) -> tuple[int, bool]:
    """The lane's number of the ticket's bitmap; without one, the allocation and that all of it is dirty."""
    try:
        return asked.bitmap(visit.ticket, visit.image), False
    except RequestError as error:
        if not visit.dialect.all_dirty_without_bitmap:
            raise
        log.warning("all is dirty", extra=facts(transfer=visit.ticket.transfer, reason=error.message))
        return 0, True


async def _stream(visit: Visit, renderer: extents.Renderer, first: list[Extent], windows: Windows) -> Sent:
    frame = Lines() if asked.wants_lines(visit.request) else Array()
    stream = sanic_seam.ChunkedBody(visit.request, 200, [*visit.headers(), ("Content-Type", frame.kind)])
    await stream.begin()
    try:
        if rows := renderer.render(first):
            await stream.send(frame.join(rows))
        async for window in windows:
            if rows := renderer.render(window):
                await stream.send(frame.join(rows))
    except (LaneLost, RequestError) as error:
        raise BodyBroken(str(error), visit.ticket.transfer, renderer.end) from error
    if ending := frame.join(renderer.finish()) + frame.closing:
        await stream.send(ending)
    return await stream.end()
