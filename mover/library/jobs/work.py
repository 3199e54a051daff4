"""What a job does with bytes, from wherever its predecessor has left it; the runner decides what its end means.

making     the first store from the source, each other one from the first copy ──► all at once, the image's locations
copying    each store from a copy that the image has
exporting  a copy that can be read ──► the disk
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from config.log import facts
from mover.library.jobs.places import JobPlaces
from mover.library.jobs.records import MAKING, Copy, Job, JobKind, Outcome
from mover.library.library import Library
from mover.library.records import ImageRecord, Location
from mover.library.seam import (
    CarrierError,
    Disk,
    Elsewhere,
    Incoming,
    NotThere,
    Received,
    SourceGone,
    StoreGone,
    WrongOffset,
)

log = logging.getLogger(__name__)

T = TypeVar("T")


class LostJob(Exception):
    """Somebody else runs the job now, or its image is gone: nothing more may be done in its name."""


class Work:
    """One try of one job."""

    def __init__(self, library: Library, places: JobPlaces, job: Job) -> None:
        self._library = library
        self._carrier = library.carrier
        self._places = places
        self._job = job
        self.outcome = job.outcome
        self.moved = False
        # Over all stores together.
        self.done_bytes, self.size_bytes = job.done_bytes, job.size_bytes

    async def run(self) -> None:
        """Do all that is left of it. Raises CarrierError, LostJob."""
        image = await self._library.ask(lambda registry: registry.get(self._job.image_id))
        if image is None or image.deleted_at_us is not None:
            raise LostJob
        if self._job.kind is JobKind.EXPORT:
            await self._export(image)
        elif self._job.kind in MAKING:
            await self._make(image)
        else:
            await self._copy(image)

    # -- the kinds ---------------------------------------------------------------------------------------------

    async def _make(self, image: ImageRecord) -> None:
        job = self._job
        if job.input.kills and not await self._library.ask(lambda registry: registry.jobs.take_queued(job)):
            raise LostJob
        staged: Copy | None = None
        if job.kind is JobKind.GLANCE_DIRECT:
            staged = await self._staged(image)
            left = set(job.input.stores) - self._settled
            self._progress(0 if left else staged.size_bytes, staged.size_bytes)
        for store in job.input.stores:
            if store not in self._settled:
                await self._fill(image, store)
        copies = self._targets
        await self._tell()
        made = await self._library.ask(lambda registry: registry.jobs.made(job, copies, self.outcome.failed))
        if not made:
            raise LostJob
        await self._confirm(copies)
        if staged is not None and staged not in copies:
            await self._carrier.remove(staged.location)

    async def _copy(self, image: ImageRecord) -> None:
        job = self._job
        for store in job.input.stores:
            if store not in self._settled:
                await self._fill(image, store)
        copies = self.outcome.copies
        await self._tell()
        if not await self._library.ask(lambda registry: registry.jobs.copied(job, copies, self.outcome.failed)):
            raise LostJob
        await self._confirm(copies)

    async def _export(self, image: ImageRecord) -> None:
        target = await self._places.disk(self._job.input.place)
        size = image.size_bytes or 0

        async def deliver(location: Location) -> None:
            await self._carrier.deliver(location, size, target, self._progress, image.disk_format)

        await self._from_any(image, deliver)
        await self._tell()

    # -- one store ---------------------------------------------------------------------------------------------

    async def _fill(self, image: ImageRecord, store: str) -> None:
        """One more copy. Where not all stores must succeed, one that fails is noted, and the others go on."""
        try:
            received = await self._bring(image, store)
        except CarrierError as error:
            last = not self._targets and len(self.outcome.failed) + 1 == len(self._job.input.stores)
            if self._job.input.must_all or last or isinstance(error, (SourceGone, Elsewhere)):
                raise
            await self._forget()
            await self._note(failed={**self.outcome.failed, store: error.message})
            return
        await self._note(copies=(*self.outcome.copies, copy_of(received)))

    async def _bring(self, image: ImageRecord, store: str) -> Received:
        asked = self._job.input
        if self.outcome.copies:
            first = self.outcome.copies[0]
            incoming = Incoming(
                image, await self._kept(image), size_bytes=first.size_bytes, md5=first.md5, store=store, resumable=True
            )
            return await self._carrier.copy(first.location, incoming, self._progress)
        if self._job.kind is JobKind.COPY_IMAGE:
            return await self._from_any(image, lambda location: self._again(image, store, location))
        given = await self._source()
        offset = await self._kept(image) if self._goes_on else 0
        incoming = Incoming(image, offset, size_bytes=asked.size_bytes, md5=asked.md5, store=store, resumable=True)
        try:
            return await self._carrier.bring(given, incoming, self._progress, asked.digests)
        except WrongOffset:  # what is kept is in another store
            await self._forget()
            incoming = msgspec.structs.replace(incoming, offset=0)
            return await self._carrier.bring(given, incoming, self._progress, asked.digests)

    async def _again(self, image: ImageRecord, store: str, location: Location) -> Received:
        """Another copy of what the image has."""
        incoming = Incoming(
            image, await self._kept(image), size_bytes=image.size_bytes, md5=image.md5, store=store, resumable=True
        )
        return await self._carrier.copy(location, incoming, self._progress)

    async def _staged(self, image: ImageRecord) -> Copy:
        """What was staged becomes a copy where it lies."""
        if self.outcome.copies:
            return self.outcome.copies[0]
        copy = copy_of(await self._carrier.publish_staged(Incoming(image, md5=self._job.input.md5)))
        await self._note(copies=(copy,))
        return copy

    async def _from_any(self, image: ImageRecord, use: Callable[[Location], Awaitable[T]]) -> T:
        """From the first copy that can be read. Raises Elsewhere if others can read one, and this host none."""
        elsewhere: Elsewhere | None = None
        last: CarrierError = NotThere("the image has no data in any store")
        for location in image.copies:
            try:
                return await use(location)
            except Elsewhere as error:
                last = elsewhere = elsewhere or error
            except (SourceGone, NotThere) as error:
                last = elsewhere or error
        if isinstance(last, NotThere) and image.copies:
            raise StoreGone(last.message)
        raise last

    async def _source(self) -> Disk:
        place = self._job.input.place
        if self._job.kind is JobKind.WEB_DOWNLOAD:
            return self._places.url(place)
        return await self._places.disk(place)

    @property
    def _goes_on(self) -> bool:
        """Whether what is kept is of this source: of an earlier try, or of an earlier job as was asked."""
        if self._job.kind is JobKind.WEB_DOWNLOAD:
            return False  # nobody knows whether the URL has the same bytes as then
        return self._job.tries > 1 or self._job.done_bytes > 0 or self._job.input.resume

    async def _kept(self, image: ImageRecord) -> int:
        try:
            return await self._carrier.kept(image.id) or 0
        except StoreGone:  # a store that is away, perhaps another one: what it may have kept is not gone on with
            return 0

    # -- how far it is -----------------------------------------------------------------------------------------

    @property
    def _targets(self) -> tuple[Copy, ...]:
        """The copies that the image gets: staged data may lie where they are not to stay."""
        return tuple(copy for copy in self.outcome.copies if copy.location.store in self._job.input.stores)

    @property
    def _settled(self) -> set[str]:
        return {copy.location.store for copy in self.outcome.copies} | set(self.outcome.failed)

    def _progress(self, done: int, size: int | None) -> None:
        """Of one store; shown of all together."""
        stores, settled = max(1, len(self._job.input.stores)), len(self._settled & set(self._job.input.stores))
        if size is None:
            self.done_bytes = max(self.done_bytes, done)
            return
        self.size_bytes = size * stores
        self.done_bytes = min(settled, stores - 1) * size + done

    async def _tell(self) -> None:
        """All bytes are there."""
        done, size = self.done_bytes, self.size_bytes
        await self._library.ask(lambda registry: registry.jobs.progress(self._job, done, size, False))

    async def _note(self, copies: tuple[Copy, ...] | None = None, failed: dict[str, str] | None = None) -> None:
        copies = self.outcome.copies if copies is None else copies
        self.outcome = Outcome(copies, self.outcome.failed if failed is None else failed)
        if not await self._library.ask(lambda registry: registry.jobs.note(self._job, self.outcome)):
            raise LostJob

    async def _confirm(self, copies: tuple[Copy, ...]) -> None:
        """The stores need not remember them any more; a sweep tells them if this fails."""
        for copy in copies:
            try:
                await self._carrier.registered(self._job.image_id, copy.location)
            except CarrierError:
                pass  # it is only early

    async def undo(self, keeps: bool) -> None:
        """Give back what no image will have; what has come of an unfinished copy too, unless it `keeps` that.

        The registry forgets the copies first: who goes on after a crash must not take them for being there.
        """
        copies = self.outcome.copies
        if copies:
            await self._note(copies=())
        for copy in copies:
            await self._carrier.remove(copy.location)
        if not keeps:
            await self._forget()

    async def _forget(self) -> None:
        """Drop what has come of an unfinished copy; in a store that is away, a sweep does it later."""
        try:
            await self._carrier.forget(self._job.image_id)
        except StoreGone as error:
            log.warning("parts of an image could not be removed yet", extra=facts(reason=error.message))


def copy_of(received: Received) -> Copy:
    """What a carrier has received, as a job remembers it."""
    facts = msgspec.structs.asdict(received)
    if received.hash_value is None:
        facts["hash_algo"] = None
    return Copy(**facts)
