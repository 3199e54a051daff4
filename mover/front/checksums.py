"""The checksum of an image: hashed by its worker while the client waits."""

from __future__ import annotations

import asyncio

from sanic import Request

from mover.front import asked
from mover.front.admission import Use
from mover.front.errors import RequestError, job_failed
from mover.front.jobs import tell, while_wanted
from mover.front.meter import Meter
from mover.front.ranges import Span
from mover.front.sanic_seam import Sent
from mover.front.visit import Door, Visit
from workers.lane import checksum_format
from workers.lane.checksum_format import NO_LIMIT, Asked, ChecksumRefused
from workers.lane.front_lane import FrontLane, InFlight
from workers.lane.protocol import Completion, Kind, Status

# How soon a limit is seen that was not there before, and that a limited checksum wants to read on.
LOOK_S, POLL_S = 0.05, 0.002


class Checksums:
    """The handlers of `GET /images/{id}/checksum` and `/checksum/algorithms`."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def get(self, request: Request, image_id: str) -> Sent:
        """The blkhash of the whole image; a client that leaves stops it."""
        ticket = await self._door.ticket(request, image_id)
        question = _asked(request)
        async with self._door.visit(request, ticket, Use.READ) as visit:
            visit.check_readable()
            visit.check_block_device("checksum")
            digest = await self._digest(visit, question)
            visit.has_moved(Span(0, visit.image.size_bytes))
            answer = {
                "algorithm": question.algorithm,
                "block_size": question.block_bytes,
                "checksum": digest,
            }
            return await visit.send_json(answer)

    async def _digest(self, visit: Visit, question: Asked) -> str:
        lane, size = visit.lane, visit.image.size_bytes
        holder = lane.slots.enter()
        try:
            slot = await lane.take_slot(holder)
            checksum_format.ask(lane.views[slot], question)
            completion = await _metered(lane, slot, size, visit.meter())
            digest = checksum_format.answered(lane.views[slot], completion.value)
            lane.give_back(slot)
        finally:
            lane.slots.leave(holder)
        if completion.status is not Status.OK:
            raise job_failed(completion, "checksum", 0, size)
        return digest

    async def algorithms(self, request: Request, image_id: str) -> Sent:
        """What is offered."""
        ticket = await self._door.ticket(request, image_id)
        async with self._door.visit(request, ticket, Use.LOOK) as visit:
            visit.check_block_device("checksum")
            return await visit.send_json({"algorithms": checksum_format.algorithms()})


async def _metered(lane: FrontLane, slot: int, size: int, meter: Meter) -> Completion:
    if meter.limited:
        checksum_format.may_read(lane.views[slot], 0)
    in_flight = lane.submit(Kind.CHECKSUM, 0, size, slot=slot)
    metering = asyncio.create_task(_let_read(lane, in_flight, size, meter))
    try:
        return await while_wanted(lane, in_flight)
    finally:
        metering.cancel()
        meter.close()


async def _let_read(lane: FrontLane, in_flight: InFlight, size: int, meter: Meter) -> None:
    """Let the worker read as fast as the limits are, block by block. What its successor reads again is not counted."""
    view = lane.views[in_flight.job.slot]
    most = checksum_format.readable(view)
    while True:
        if not meter.limited:
            if most != NO_LIMIT:
                most = NO_LIMIT
                _admit(lane, in_flight, most)
            await asyncio.sleep(LOOK_S)
            continue
        wanted = min(size, checksum_format.wanted(view))
        if most == NO_LIMIT:
            most = wanted
            checksum_format.may_read(view, most)
        elif most < wanted:
            step = min(wanted - most, meter.step_bytes)
            await meter.ready(step)
            meter.moved(step)
            most += step
        elif checksum_format.readable(view) < wanted:
            _admit(lane, in_flight, most)
        else:
            await asyncio.sleep(POLL_S)


def _admit(lane: FrontLane, in_flight: InFlight, count: int) -> None:
    checksum_format.may_read(lane.views[in_flight.job.slot], count)
    tell(lane, Kind.GO_ON, in_flight.job.number)


def _asked(request: Request) -> Asked:
    default = Asked()
    algorithm = request.args.get("algorithm", default.algorithm)
    question = Asked(algorithm, asked.number(request, "block_size", default.block_bytes))
    try:
        checksum_format.check(question)
    except ChecksumRefused as error:
        raise RequestError(400, str(error)) from error
    return question
