"""Lanes that wait for memory: idle ones give theirs back first. Who asks for a lane is seldom the one that has it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from mover.serve.lanes import FrontEndPort, LaneBook
from mover.serve.messages import GiveBack, LaneRefused, OpenLane

# Idle lanes are closed within milliseconds, and one that is busy may be idle in a moment: front ends are asked again so
# often, so soon one after the other. Who has waited for all of it is refused.
ASKS, ASK_AGAIN_S = 10, 0.1
# How long a refused client should wait.
RETRY_S = 1.0


@dataclass(frozen=True, eq=False, slots=True)
class Waiting:
    """A lane that a front end wants, and what opens it."""

    front_end: FrontEndPort
    message: OpenLane
    open: Callable[[], None]


class Line:
    """First come, first served; who waits in vain is refused."""

    def __init__(self, lanes: LaneBook) -> None:
        self._lanes = lanes
        self._waiting: dict[Waiting, asyncio.TimerHandle] = {}

    def join(self, waiting: Waiting) -> None:
        """Open it now if there is room and nobody before it, else have the front ends close lanes that are not used."""
        self._look(waiting, ASKS)

    def holds(self, front_end: FrontEndPort, number: int) -> bool:
        """Whether a front end's lane of this number waits here."""
        return any(one.front_end is front_end and one.message.lane == number for one in self._waiting)

    def leave(self, front_end: FrontEndPort, number: int | None = None) -> None:
        """A lane is not wanted any more, or none of a front end's is."""
        for one in list(self._waiting):
            if one.front_end is front_end and number in (None, one.message.lane):
                self._waiting.pop(one).cancel()

    def move_on(self) -> None:
        """There may be room."""
        for one in list(self._waiting):
            if not self._lanes.has_room(one.message.arena_bytes):
                return
            self._waiting.pop(one).cancel()
            one.open()

    def _look(self, waiting: Waiting, asks: int) -> None:
        """Whether there is room now; if not, who uses memory is asked for it, or who waits for it refused."""
        later = asyncio.get_running_loop().call_later(ASK_AGAIN_S, self._look, waiting, asks - 1)
        self._waiting[waiting] = later
        self.move_on()
        if waiting not in self._waiting:
            return
        if not asks:
            self._refuse(waiting)
            return
        for front_end in {lane.front_end for lane in self._lanes}:
            front_end.send(GiveBack(waiting.message.arena_bytes))

    def _refuse(self, waiting: Waiting) -> None:
        self._waiting.pop(waiting).cancel()
        limit = self._lanes.limit_bytes
        reason = f"all images together have {limit} bytes of shared memory (supervisor.arena_limit_bytes) in use"
        waiting.front_end.send(LaneRefused(waiting.message.lane, reason, RETRY_S))
        self.move_on()
