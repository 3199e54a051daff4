"""A flush of an image, and the truth about writes that were lost before it."""

from __future__ import annotations

from mover.front import sanic_seam
from mover.front.answers import Answered, send_error
from mover.front.errors import RequestError, job_failed
from mover.front.visit import Visit
from workers.lane import lost_format
from workers.lane.protocol import Kind, Status


async def flush(visit: Visit) -> None:
    """Make durable what was confirmed. Raises RequestError, LaneLost, and Answered when it told of losses."""
    completion = await visit.lane.run(Kind.FLUSH, transfer=visit.ticket.transfer)
    if completion.status is Status.LOST:
        await _tell_lost(visit)
    elif completion.status is not Status.OK:
        raise job_failed(completion, "flush", 0, 0)


async def _tell_lost(visit: Visit) -> None:
    """Tell the client, once, which confirmed writes are gone with the server that had them.

    They are struck off the ledger only after the answer is written: told twice is better than never.
    """
    lane, transfer = visit.lane, visit.ticket.transfer
    holder = lane.slots.enter()
    try:
        slot = await lane.take_slot(holder)
        completion = await lane.run(Kind.LOST, slot=slot, transfer=transfer)
        answer = bytes(lane.views[slot][: completion.value])
        lane.give_back(slot)
    finally:
        lane.slots.leave(holder)
    if completion.status is not Status.OK:
        raise job_failed(completion, "flush", 0, 0)
    losses, lost = lost_format.unpack(memoryview(answer))
    size = visit.image.size_bytes
    lost = [(offset, min(length, size - offset)) for offset, length in lost if offset < size]
    if not lost:
        return  # another flush of this transfer has told it meanwhile
    message = "the NBD server was lost with writes that were not flushed; send these ranges again"
    await send_error(visit.request, RequestError(500, message, lost=lost))
    # Now, since the client may leave with its answer, which would be taken for a request without one.
    noted = sanic_seam.noted(visit.request)
    noted.account.ended(noted, 500)
    await lane.run(Kind.TOLD, losses, transfer=transfer)
    raise Answered
