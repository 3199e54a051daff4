"""One question to a store, in a slot of its lane."""

from __future__ import annotations

import asyncio

from mover.library.bytes.errors import from_job, from_refusal
from mover.library.seam import StoreGone
from workers.lane import store_format
from workers.lane.front_lane import FrontLane, InFlight
from workers.lane.protocol import Completion, Flag, Kind, Status
from workers.lane.store_format import Answer, Question, Receive, Refused

# A directory on a server that does not answer holds a thread of the worker for as long as that lasts, not its client.
PATIENCE_S = 60.0


async def ask(lane: FrontLane, question: Question, patience_s: float | None = PATIENCE_S) -> Answer:
    """What the store answers. Raises CarrierError when it refuses, LaneLost."""
    holder = lane.slots.enter()
    try:
        slot = await lane.take_slot(holder)
        store_format.ask(lane.views[slot], question)
        in_flight = lane.submit(Kind.STORE, slot=slot)
        try:
            async with asyncio.timeout(patience_s):
                completion = await asyncio.shield(in_flight.done)
        except BaseException as error:
            _abandon(lane, in_flight, isinstance(question, Receive))
            if isinstance(error, TimeoutError):
                raise StoreGone(f"the store has not answered within {patience_s:g} s") from None
            raise
        answer = _answer(lane, slot, completion)
    finally:
        lane.slots.leave(holder)
    if isinstance(answer, Refused):
        raise from_refusal(answer)
    return answer


def _answer(lane: FrontLane, slot: int, completion: Completion) -> Answer:
    try:
        if completion.status is not Status.OK:
            raise from_job(completion)
        return store_format.answer_in(lane.views[slot])
    finally:
        lane.give_back(slot)


def _abandon(lane: FrontLane, in_flight: InFlight, begins: bool) -> None:
    """Nobody waits for it any more. A session that it begins is ended as soon as it is there."""
    if not begins:
        lane.abandon(in_flight)
        return

    def ended(done: asyncio.Future[Completion]) -> None:
        if done.cancelled() or done.exception() is not None:
            return
        lane.give_back(in_flight.job.slot)
        if done.result().value:
            roll_back(lane, done.result().value, Flag.KEEP)

    in_flight.done.add_done_callback(ended)


def roll_back(lane: FrontLane, session: int, flags: Flag) -> InFlight | None:
    """End a session; None if its lane is closed, which has ended it."""
    if lane.lost is not None:
        return None
    return lane.submit(Kind.ROLLBACK, session, flags=flags)
