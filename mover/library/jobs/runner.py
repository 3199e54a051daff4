"""A front end's runner: claims jobs, does them, tells how far they are, and ends each as it must.

Whatever happens, a job that is claimed here ends in one of these: done, failed or cancelled with nothing left behind;
put back for a later try, or for whoever comes next; or lost to somebody else, who goes on with it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from config.log import facts
from mover.library.jobs import rules
from mover.library.jobs.places import JobPlaces
from mover.library.jobs.records import Job, JobKind
from mover.library.jobs.states import JobState
from mover.library.jobs.work import LostJob, Work
from mover.library.library import Library
from mover.library.registry.errors import RegistryError
from mover.library.seam import CarrierError, Elsewhere

if TYPE_CHECKING:
    from mover.library.registry.registry import Registry

log = logging.getLogger(__name__)

T = TypeVar("T")

# How often a job's progress is written down, and a wish to cancel it is heard of.
TICK_S = 1.0
# How often a front end without jobs looks for those of others; its own it begins at once.
LOOK_S = 10.0
# A registry that cannot be asked just now is asked again.
AGAIN_S = 1.0


class Runner:
    """`run` until cancelled; `nudge` when there is something to do."""

    def __init__(self, library: Library, places: JobPlaces) -> None:
        self._library = library
        self._places = places
        self._nudged = asyncio.Event()
        self._running: dict[asyncio.Task[None], str] = {}  # with the jobs' ids
        self._in_doubt = False

    def nudge(self) -> None:
        """A job is new, or is to be cancelled."""
        self._nudged.set()

    async def run(self) -> None:
        """Claim and run jobs until cancelled; those under way are put back then."""
        try:
            while True:
                self._nudged.clear()
                pause_s = await self._look()
                try:
                    await asyncio.wait_for(self._nudged.wait(), pause_s)
                except TimeoutError:
                    pass
        finally:
            for task in self._running:
                task.cancel()
            if self._running:
                await asyncio.wait(self._running)

    async def _look(self) -> float:
        """Claim what may be claimed; how long to wait until the next look."""
        library = self._library
        try:
            if self._in_doubt:
                known = list(self._running.values())
                await library.ask(lambda registry: registry.jobs.leave_others(library.holder, known))
                self._in_doubt = False
            while True:
                due_us = await library.ask(lambda registry: registry.jobs.next_due_us(library.host))
                if due_us is None:
                    return LOOK_S
                wait_s = due_us / 1e6 - time.time()
                if wait_s > 0:
                    return min(wait_s, LOOK_S)
                claim = partial(_claim, host=library.host, holder=library.holder, most=library.settings.jobs)
                job = await library.ask(claim)
                if job is None:
                    return TICK_S if self._running else LOOK_S
                self._begin(job)
        except RegistryError as error:
            # What was claimed may be ours all the same, and only the answer lost: nobody would ever run it.
            self._in_doubt = True
            log.error("jobs cannot be looked for", extra=facts(reason=str(error)))
            return LOOK_S

    def _begin(self, job: Job) -> None:
        task = asyncio.get_running_loop().create_task(self._attend(job))
        self._running[task] = job.id
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self.nudge()
        if not task.cancelled() and task.exception() is not None:
            log.error("a job's end failed", exc_info=task.exception())

    # -- one job -----------------------------------------------------------------------------------------------

    async def _attend(self, job: Job) -> None:
        log.info("job begins", extra=facts(job=job.id, kind=str(job.kind), image=job.image_id, tries=job.tries))
        work = Work(self._library, self._places, job)
        if job.cancel:
            await self._cancelled(job, work)
            return
        if job.tries > self._library.settings.job_tries:
            await self._fail(job, work, rules.too_many(job.kind, job.tries - 1))
            return
        doing = asyncio.ensure_future(work.run())
        try:
            wish = await self._watch(job, work, doing)
        except BaseException:
            # The service ends: what has come is kept, and the next one goes on.
            await _stopped(doing)
            await self._leave(job)
            raise
        if wish == "cancel":
            await self._cancelled(job, work)
        elif wish == "done":
            await self._settle(job, work, doing)
        else:
            log.warning("a job was taken by another front end", extra=facts(job=job.id))

    async def _watch(self, job: Job, work: Work, doing: asyncio.Future[None]) -> str:
        """Tell how far it is until it ends: `done`, or stopped since it is to be: `cancel`, `lost`."""
        told = work.done_bytes
        while True:
            await asyncio.wait({doing}, timeout=TICK_S)
            if doing.done():
                return "done"
            done, size = work.done_bytes, work.size_bytes
            work.moved = work.moved or done > told
            asked = partial(_progress, job=job, done=done, size=size, moved=done > told)
            told = done
            try:
                wish = await self._library.ask(asked)
            except RegistryError as error:
                log.error("a job's progress cannot be told", extra=facts(job=job.id, reason=str(error)))
                continue
            if wish is None and await self._has_ended(job):
                await asyncio.wait({doing})  # it was just registered
                return "done"
            if wish is not False and not doing.done():
                await _stopped(doing)
                return "lost" if wish is None else "cancel"

    async def _settle(self, job: Job, work: Work, doing: asyncio.Future[None]) -> None:
        try:
            doing.result()
        except LostJob:
            if await self._is_ours(job):  # else somebody goes on with what this one has made
                await self._cancelled(job, work)
        except Elsewhere as error:
            await self._hand_over(job, work, error)
        except CarrierError as error:
            tries = 1 if work.moved else job.tries
            most = self._library.settings.job_tries
            verdict = rules.after_failure(error, job.kind, tries, most, _written(job, work))
            if verdict.pause_s is None:
                await self._fail(job, work, verdict.message)
                return
            due_us = int((time.time() + verdict.pause_s) * 1e6)
            log.warning("job is tried again", extra=facts(job=job.id, reason=verdict.message))
            await self._insist(lambda registry: registry.jobs.again(job, due_us, verdict.message))
        except RegistryError as error:
            # What it was told last may have been done all the same: nothing is taken back. A job that has ended then
            # stays as it is; else it goes on at what was noted.
            due_us = int((time.time() + AGAIN_S) * 1e6)
            log.warning("job is tried again", extra=facts(job=job.id, reason=str(error)))
            await self._insist(lambda registry: registry.jobs.again(job, due_us, rules.UNTOLD))
        except Exception:
            log.exception("job failed", extra=facts(job=job.id))
            await self._fail(job, work, f"{job.kind} failed: internal error: the log of the service has it")
        else:
            if job.kind is JobKind.EXPORT:
                await self._insist(lambda registry: registry.jobs.end(job, JobState.DONE, ""))
            log.info("job done", extra=facts(job=job.id, image=job.image_id, length=work.done_bytes))

    async def _hand_over(self, job: Job, work: Work, error: Elsewhere) -> None:
        """To the host that has the bytes; without one, and where the job's disk is here, it has failed."""
        host = rules.who_goes_on(error, job.kind, self._library.host)
        if host is None:
            await self._fail(job, work, rules.after_failure(error, job.kind, job.tries, job.tries).message)
            return
        log.info("job is handed over", extra=facts(job=job.id, image=job.image_id, host=host.name))
        told = rules.handed(host.name)
        await self._insist(lambda registry: registry.jobs.hand_over(job, host.id, told))

    async def _has_ended(self, job: Job) -> bool:
        now = await self._insist(lambda registry: registry.jobs.get(job.id))
        return now is None or not now.is_live

    async def _is_ours(self, job: Job) -> bool:
        now = await self._insist(lambda registry: registry.jobs.get(job.id))
        return now is not None and (now.state, now.holder) == (job.state, job.holder)

    async def _cancelled(self, job: Job, work: Work) -> None:
        await self._end(job, work, JobState.CANCELLED, rules.cancelled(_written(job, work)))

    async def _fail(self, job: Job, work: Work, message: str) -> None:
        log.warning("job failed", extra=facts(job=job.id, image=job.image_id, reason=message))
        await self._end(job, work, JobState.FAILED, message)

    async def _end(self, job: Job, work: Work, state: JobState, message: str) -> None:
        """Nothing is left behind before it is said to have ended; but what an import of a disk can go on with."""
        image = await self._insist(lambda registry: registry.get(job.image_id))
        there = image is not None and image.deleted_at_us is None
        try:
            await work.undo(keeps=there and job.kind is JobKind.DISK)
        except LostJob:
            return
        except CarrierError as error:
            log.warning("what a job has left is left to the sweep", extra=facts(job=job.id, reason=error.message))
        await self._insist(lambda registry: registry.jobs.end(job, state, message))

    async def _leave(self, job: Job) -> None:
        try:
            await self._library.ask(lambda registry: registry.jobs.leave(job))
        except RegistryError as error:  # who looks for the jobs of the dead finds it
            log.error("a job cannot be left", extra=facts(job=job.id, reason=str(error)))

    async def _insist(self, question: Callable[[Registry], T]) -> T:
        """Ask until there is an answer: a job that nobody ends would hold its image for as long as this lives."""
        while True:
            try:
                return await self._library.ask(question)
            except RegistryError as error:
                log.error("a job's end cannot be told yet", extra=facts(reason=str(error)))
                await asyncio.sleep(AGAIN_S)


def _written(job: Job, work: Work) -> str:
    return rules.written(job.kind, work.done_bytes, work.size_bytes)


def _progress(registry: Registry, job: Job, done: int, size: int | None, moved: bool) -> bool | None:
    return registry.jobs.progress(job, done, size, moved)


def _claim(registry: Registry, host: str, holder: str, most: int) -> Job | None:
    return registry.jobs.claim(host, holder, most)


async def _stopped(doing: asyncio.Future[None]) -> None:
    """Cancel it and wait until it has let go of everything."""
    doing.cancel()
    await asyncio.wait({doing})
    if not doing.cancelled():
        doing.exception()  # looked at: it ended by itself in that moment
