"""Jobs that take so long that they are stopped when their client leaves, and jobs that nobody waits for."""

from __future__ import annotations

import asyncio

from workers.lane.front_lane import FrontLane, InFlight
from workers.lane.lane_states import LaneLost
from workers.lane.protocol import Completion, Kind


async def run_while_wanted(lane: FrontLane, kind: Kind, offset: int = 0, length: int = 0, **fields: int) -> Completion:
    """Run a job; when the request is cancelled, so is the job. Raises LaneLost."""
    return await while_wanted(lane, lane.submit(kind, offset, length, **fields))


async def while_wanted(lane: FrontLane, in_flight: InFlight) -> Completion:
    """The end of such a job. Raises LaneLost."""
    try:
        return await in_flight.done
    except asyncio.CancelledError:
        tell(lane, Kind.CANCEL, in_flight.job.number)
        lane.abandon(in_flight)
        raise


def tell(lane: FrontLane, kind: Kind, offset: int) -> None:
    """Submit a job whose end nobody waits for; a lane that is closed has ended what it would have."""
    try:
        lane.submit(kind, offset)
    except LaneLost:
        pass
