"""The bytes of an answer to a GET: small ones in one write with the head, large ones from slots as they are read."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from sanic import Request

from mover.front import sanic_bodies, sanic_seam
from mover.front.download import Download
from mover.front.errors import BodyBroken, ClientGone, job_failed
from mover.front.meter import Meter
from mover.front.outlet import outlet
from mover.front.pace import Pace
from mover.front.ranges import Span
from mover.front.sanic_seam import Headers, Sent
from mover.front.usage import Moving
from workers.lane.front_lane import FrontLane
from workers.lane.protocol import Kind, Status

# A body up to this size is answered with one write; a copy of it is cheaper than a descriptor of its own.
SMALL_BYTES = 64 * 1024


class Watcher(Protocol):
    """Who wants to know how far it is."""

    moving: Moving | None

    def has_moved(self, span: Span) -> None:
        """A small body has been read, all at once."""


class Body(NamedTuple):
    """What is sent: bytes of the lane's image, or of a whole file's session; `transfer` is its name in the log."""

    span: Span
    session: int = 0
    transfer: int = 0
    watcher: Watcher | None = None


async def send_body(request: Request, lane: FrontLane, body: Body, status: int, headers: Headers, pace: Pace) -> Sent:
    """Answer with bytes, at least one. Raises what a read fails with, ClientGone, or BodyBroken after the head."""
    if body.span.length <= SMALL_BYTES:
        if pace.meter is not None and pace.meter.limited:
            await _meter(pace.meter, body.span.length)
        return await _send_small(request, lane, body, status, headers)
    return await _send_large(request, lane, body, status, headers, pace)


async def _meter(meter: Meter, count: int) -> None:
    """Wait until a small body may be moved."""
    await meter.ready(count)
    meter.moved(count)


async def _send_small(request: Request, lane: FrontLane, body: Body, status: int, headers: Headers) -> Sent:
    span = body.span
    holder = lane.slots.enter()
    try:
        slot = await lane.take_slot(holder)
        completion = await lane.run(Kind.READ, span.offset, span.length, slot=slot, context=body.session)
        data = bytes(lane.views[slot][: span.length])
        lane.give_back(slot)
    finally:
        lane.slots.leave(holder)
    if completion.status is not Status.OK:
        raise job_failed(completion, "read", span.offset, span.length)
    if body.watcher is not None:
        body.watcher.has_moved(span)
    noted = sanic_seam.noted(request)
    noted.offset = span.offset
    noted.account.sent(noted, span.length)
    return await sanic_seam.reply(request, status, headers, data)


async def _send_large(request: Request, lane: FrontLane, body: Body, status: int, headers: Headers, pace: Pace) -> Sent:
    await sanic_bodies.settle_body(request)
    sanic_seam.noted(request).offset = body.span.offset
    way_out = outlet(request, pace)
    head = sanic_seam.head(request, status, headers)
    download = Download(lane, way_out, body.span, head, body.session, pace.meter)
    if body.watcher is not None:
        body.watcher.moving = download
    try:
        await download.run()
        await way_out.finish()
    except ClientGone:
        raise
    except Exception as error:  # a bug of ours, too: no answer of another kind may follow bytes of the image
        if download.began:
            raise BodyBroken(repr(error), body.transfer, download.sent) from error
        raise
    finally:
        way_out.close()
    return await sanic_seam.finished(request, status)
