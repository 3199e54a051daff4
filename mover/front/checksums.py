"""The checksum of an image: hashed by its worker while the client waits."""

from __future__ import annotations

from sanic import Request

from mover.front import asked
from mover.front.admission import Use
from mover.front.errors import RequestError, job_failed
from mover.front.jobs import run_while_wanted
from mover.front.ranges import Span
from mover.front.sanic_seam import Sent
from mover.front.visit import Door, Visit
from workers.lane import checksum_format
from workers.lane.checksum_format import Asked, ChecksumRefused
from workers.lane.protocol import Kind, Status


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
            completion = await run_while_wanted(lane, Kind.CHECKSUM, 0, size, slot=slot)
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


def _asked(request: Request) -> Asked:
    default = Asked()
    algorithm = request.args.get("algorithm", default.algorithm)
    question = Asked(algorithm, asked.number(request, "block_size", default.block_bytes))
    try:
        checksum_format.check(question)
    except ChecksumRefused as error:
        raise RequestError(400, str(error)) from error
    return question
