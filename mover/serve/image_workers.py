"""All image workers: one per export, found by the export's key."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count

from config.allow import check_host, roots_of
from config.export import Export
from config.export_url import parse_export
from config.log import facts
from config.roots import NotAllowed
from config.settings import Settings
from config.stores import is_of_stores
from mover.serve.image_worker import ImageWorker
from mover.serve.lanes import FrontEndPort, Lane, LaneBook
from mover.serve.ledgers import Ledgers
from mover.serve.line import Line, Waiting
from mover.serve.messages import LaneRefused, OpenLane
from mover.serve.programs import Programs
from mover.serve.spare import Spare
from mover.serve.workers_house import House
from workers.image import counts
from workers.lane.tally import WORD_BYTES

log = logging.getLogger(__name__)

# How often a ledger that a worker of an earlier service has is asked for again.
HELD_S = 0.05


class Dropped:
    """What workers had counted that are forgotten: a count never falls."""

    def __init__(self) -> None:
        self.words: list[int] = [0] * (counts.LAYOUT.size_bytes // WORD_BYTES)
        self.restarts = 0
        self.given_up = 0

    def add(self, worker: ImageWorker) -> None:
        """This one, too."""
        self.words = [one + more for one, more in zip(self.words, worker.tally.words(), strict=True)]
        self.restarts += worker.restarts
        self.given_up += worker.given_up


class ImageWorkers:
    """Opens and closes lanes, and ends all workers in the end."""

    def __init__(self, programs: Programs, settings: Settings, ledgers: Ledgers) -> None:
        self._ledgers = ledgers
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self.lanes = LaneBook(settings.supervisor.arena_limit_bytes)
        self._line = Line(self.lanes)
        self.spare = Spare(programs)
        named = frozenset(parse_export(image.url).key for image in settings.image)
        self._house = House(self.spare, settings, self.lanes, ledgers, count(1), named, roots_of(settings))
        self._workers: dict[str, ImageWorker] = {}
        self._dropped = Dropped()

    def __iter__(self) -> Iterator[ImageWorker]:
        return iter(list(self._workers.values()))

    def retune(self, settings: Settings) -> None:
        """Put other settings in force, in every worker that runs and all that will."""
        self._house.settings, self._house.roots = settings, roots_of(settings)
        self.lanes.limit_bytes = settings.supervisor.arena_limit_bytes
        self._line.move_on()
        for worker in self._workers.values():
            worker.retune()

    @property
    def restarts(self) -> int:
        """How often a worker's successor was started."""
        return self._dropped.restarts + sum(worker.restarts for worker in self)

    @property
    def given_up(self) -> int:
        """How often a worker was given up."""
        return self._dropped.given_up + sum(worker.given_up for worker in self)

    def tallies(self) -> list[Sequence[int]]:
        """What the workers have counted."""
        return [self._dropped.words, *(worker.tally.words() for worker in self)]

    def open_lane(self, front_end: FrontEndPort, message: OpenLane, ticketed: Callable[[str], bool]) -> None:
        """Attach a new lane to its export's worker, or refuse it; its number must be free.

        `ticketed` says whether a ticket in force names the export of this key.
        """
        refusal = self._refusal(message.export, ticketed)
        if refusal:
            front_end.send(LaneRefused(message.lane, refusal))
            return
        self._line.join(Waiting(front_end, message, partial(self._open_lane, front_end, message)))

    def _open_lane(self, front_end: FrontEndPort, message: OpenLane) -> None:
        lane = Lane(front_end, message.lane, message.export, message.arena_bytes)
        self.lanes.add(lane)
        self._worker(message.export).want(lane)

    def has_lane(self, front_end: FrontEndPort, number: int) -> bool:
        """Whether a front end's lane of this number is open, or to be opened."""
        return self.lanes.get(front_end, number) is not None or self._line.holds(front_end, number)

    def _refusal(self, export: Export, ticketed: Callable[[str], bool]) -> str:
        """Why nothing there is opened, if so: a front end that somebody has taken over must not reach just anything.

        Paths are judged by the worker (decision 0015). A host is, here, by what is in force now; what a ticket or the
        settings name was judged when that was installed.
        """
        if export.of_library:
            return "" if is_of_stores(export, self._house.settings.store) else "it is no image of any store"
        if export.transport == "tcp" and export.key not in self._house.named and not ticketed(export.key):
            try:
                check_host(export.host, self._house.settings.allow.nbd_hosts)
            except NotAllowed as refused:
                log.warning("lane refused", extra=facts(what=refused.what, setting=refused.key))
                return str(refused)
        return ""

    def close_lane(self, front_end: FrontEndPort, number: int) -> None:
        """Forget a lane; nothing happens if it was refused meanwhile."""
        self._line.leave(front_end, number)
        lane = self.lanes.get(front_end, number)
        if lane is not None:
            self.lanes.remove(lane)
            self._line.move_on()

    def close_lanes(self, front_end: FrontEndPort) -> None:
        """Forget all lanes of a front end that is dead."""
        self._line.leave(front_end)
        for lane in self.lanes.of_front_end(front_end):
            self.lanes.remove(lane)
        self._line.move_on()

    async def forget(self, transfer: int, export_key: str, at_once: bool = False) -> None:
        """Wait until no job of this transfer is under way, and have the ledger forget it. Its requests have ended.

        `at_once` ends workers of an earlier service, whose requests nobody can reach.
        """
        while True:
            worker = self._workers.get(export_key)
            if worker is not None and worker.has_ledger:
                await worker.forget(transfer)
                return
            if self._ledgers.forget(export_key, transfer):
                return
            if at_once:
                self._ledgers.evict(export_key)
            await asyncio.sleep(HELD_S)

    async def leave(self) -> None:
        """Ask all workers to finish and exit, and wait until they have."""
        self._close()
        for worker in list(self._workers.values()):
            worker.leave()
        await self._all_ended()

    async def kill(self) -> None:
        """End all workers at once, and wait until they have ended."""
        self._close()
        for worker in list(self._workers.values()):
            worker.kill()
        await self._all_ended()

    def _close(self) -> None:
        self._closing = True
        self.spare.close()
        for worker in list(self._workers.values()):
            self._let_go(worker)

    async def _all_ended(self) -> None:
        await asyncio.gather(*(worker.ended.wait() for worker in self._workers.values()))

    def _worker(self, export: Export) -> ImageWorker:
        key = export.key
        if key not in self._workers:
            self._workers[key] = ImageWorker(key, self._house, self._at_rest)
        return self._workers[key]

    def _at_rest(self, worker: ImageWorker) -> None:
        """Nobody wants a worker now: it is let go if that is still so when nothing of its past counts any more."""
        pause_s = 0.0 if self._closing else max(0.0, worker.settled_s - self._loop.time())
        self._loop.call_later(pause_s, self._let_go, worker)

    def _let_go(self, worker: ImageWorker) -> None:
        if worker.is_idle and self._workers.get(worker.key) is worker:
            del self._workers[worker.key]
            self._dropped.add(worker)
            worker.let_go()
