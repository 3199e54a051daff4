"""The library's lanes to stores and images, and the seats of those who use them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from config.export import Export
from config.store_settings import Store
from mover.front.admission import TicketLimit, Use
from mover.front.errors import RequestError
from mover.front.visit import Door
from mover.library.bytes.asking import ask
from mover.library.bytes.errors import from_lane
from mover.library.bytes.exports import of_image
from mover.library.bytes.hauling import Lanes
from mover.library.seam import StoreGone
from workers.lane.front_lane import FrontLane
from workers.lane.lane_states import LaneLost
from workers.lane.store_format import Answer, Question


class StoreLanes:
    """Those of one front end. What is lost on a lane is a CarrierError to whoever uses it."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def ask_store(self, store: Store, question: Question) -> Answer:
        """What the store says. Raises CarrierError."""
        async with self.lane(of_image(store, "")) as lane:
            return await ask(lane, question)

    @asynccontextmanager
    async def lane(self, export: Export, use: Use | None = None) -> AsyncIterator[FrontLane]:
        """A lane to the export's worker, and a seat for the use. What is lost with it is a StoreGone."""
        try:
            lane, _ = await self._door.link.lane_to(export)
            try:
                async with self.seat(export, use):
                    yield lane
            finally:
                self._door.link.leave_lane(lane)
        except LaneLost as lost:
            raise from_lane(lost) from lost

    @asynccontextmanager
    async def lanes_between(self, source: Export, target: Export) -> AsyncIterator[Lanes]:
        """Lanes to both, on one arena. What is lost is SourceGone, TargetGone or StoreGone."""
        async with self._door.link.lanes_between(source, target) as (reads, writes):
            lanes = Lanes(reads, writes, target)
            try:
                for lane in (reads, writes):
                    await self._door.link.open_in_time(lane)
                yield lanes
            except LaneLost as lost:
                raise lanes.gone(lost) from lost

    @asynccontextmanager
    async def seat(self, export: Export, use: Use | None, limit: TicketLimit | None = None) -> AsyncIterator[None]:
        """Among those who read or write it at once. Raises StoreGone when there is none for too long."""
        admission = self._door.admission
        if use is None or not admission.counts(use):
            yield
            return
        try:
            seat = admission.enter_nowait(export.key, use, limit) or await admission.enter(export.key, use, limit)
        except RequestError as error:
            raise StoreGone(error.message) from error
        try:
            yield
        finally:
            admission.leave(seat)
