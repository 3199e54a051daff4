"""All lanes of one worker: they come from the supervisor, bring jobs, and leave."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator

from config.log import facts
from workers.image.loop import READ, Loop
from workers.image.schedule import Schedule
from workers.lane.channel import ChannelBroken, ChannelClosed
from workers.lane.protocol import ImageFacts, Job
from workers.lane.worker_lane import LaneBroken, WorkerLane
from workers.messages import Attach, LaneUse

log = logging.getLogger(__name__)


class Lanes:
    """`on_offered` is called when a lane waits to be opened, `on_left` when it has left."""

    def __init__(
        self,
        loop: Loop,
        schedule: Schedule[WorkerLane | None],
        on_offered: Callable[[WorkerLane], None],
        on_left: Callable[[WorkerLane], None],
    ) -> None:
        self._loop = loop
        self._schedule = schedule
        self._on_offered = on_offered
        self._on_left = on_left
        self._lanes: dict[int, WorkerLane] = {}

    def __iter__(self) -> Iterator[WorkerLane]:
        return iter(list(self._lanes.values()))

    def __len__(self) -> int:
        return len(self._lanes)

    def attach(self, message: Attach, fds: list[int]) -> None:
        """The supervisor introduces a front end."""
        lane = WorkerLane(message.lane, message.generation, message.front_end, socket.socket(fileno=fds[0]))
        self._lanes[lane.number] = lane
        self._loop.watch(lane.channel.fileno(), READ, lambda events: self._on_lane(lane))

    def _on_lane(self, lane: WorkerLane) -> None:
        try:
            while (received := lane.channel.receive()) is not None:
                lane.accept(*received)
                self._loop.watch(lane.doorbell, READ, lambda events: self._on_jobs(lane))
                self._on_offered(lane)
        except (ChannelClosed, ChannelBroken, LaneBroken) as error:
            self.drop(lane, str(error))

    def _on_jobs(self, lane: WorkerLane) -> None:
        self._submit(lane, lane.jobs())

    def _submit(self, lane: WorkerLane, jobs: Iterator[Job]) -> None:
        try:
            for job in jobs:
                self._schedule.submit(lane, job, lane.slot(job) if job.slot >= 0 else None, lane.identity)
        except LaneBroken as error:
            self.drop(lane, str(error))

    def submit_published(self) -> None:
        """Submit what stands in the rings, whether or not it was rung for."""
        for lane in self:
            if lane.offered:
                self._submit(lane, lane.published())

    def drop(self, lane: WorkerLane, why: str) -> None:
        """Its jobs go on to their end, and nobody hears of it."""
        if lane.closed:
            return
        log.info("lane left", extra=facts(front_end=lane.front_end, reason=why))
        del self._lanes[lane.number]
        self._loop.unwatch(lane.channel.fileno())
        if lane.doorbell >= 0:
            self._loop.unwatch(lane.doorbell)
        lane.close()
        self._schedule.left_by(lane)
        self._on_left(lane)

    def open(self, image: ImageFacts) -> None:
        """Open those that have waited for a connection."""
        for lane in self:
            if lane.offered:
                lane.open(image)

    def refuse_newcomers(self, why: str) -> None:
        """Those that were never open, and have nothing to replay, hear at once that there is no server."""
        for lane in self:
            if lane.offered and not lane.resumes:
                self._refuse(lane, why)

    def refuse_all(self, why: str) -> None:
        """But one that is just coming: it would not hear why, and has the image opened anew."""
        for lane in self:
            if lane.offered:
                self._refuse(lane, why)

    def _refuse(self, lane: WorkerLane, why: str) -> None:
        try:
            lane.refuse(why)
        except (ChannelClosed, ChannelBroken):
            pass  # it has left already
        self.drop(lane, why)

    def uses(self) -> list[LaneUse]:
        """What each of them holds."""
        return [LaneUse(lane.front_end, lane.slots, lane.slots_used) for lane in self]
