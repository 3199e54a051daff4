"""The Carrier of this house: bytes of library images through a front end's slots, a lane and a worker of the store.

receive   Receive ──► the body, slot by slot (Upload) ──► Publish        a worker of the image, in the store
send      the published file's own worker, as of any image that is read (mover/front/sending.py)
the rest  one question each to the store
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sanic import Request

from config.export import Export
from config.log import facts
from config.settings import LibrarySettings
from config.store_settings import FileStore, HttpStore
from config.store_settings import Store as StoreSettings
from config.stores import store_named
from mover.front import sanic_seam
from mover.front.admission import Use
from mover.front.errors import RequestError
from mover.front.ranges import Span as Range
from mover.front.sanic_seam import Headers, Sent
from mover.front.sending import Body, send_body
from mover.front.visit import Door
from mover.library.bytes import hauling, urls
from mover.library.bytes.asking import ask
from mover.library.bytes.disks import using
from mover.library.bytes.exports import VIEW_FORMATS, export_of, of_image, view_of
from mover.library.bytes.lanes import StoreLanes
from mover.library.bytes.receiving import Into, publish_staged, receive, received, stage
from mover.library.bytes.store_facts import keeps_parts, shown
from mover.library.bytes.volumes import Volumes
from mover.library.records import ImageRecord, Location
from mover.library.seam import (
    CarrierError,
    Disk,
    Elsewhere,
    Incoming,
    Kept,
    NotPossible,
    NotThere,
    Progress,
    Received,
    Referred,
    Span,
    Store,
    StoreAddDisabled,
    StoreGone,
    UnknownStore,
    Wanted,
    WhoHas,
)
from workers.lane import store_format
from workers.lane.front_lane import FrontLane

log = logging.getLogger(__name__)

# What was published is registered within moments; after so long nobody is about to any more.
REGISTERED_S = 600.0


class StoreCarrier:
    """Moves bytes between clients and the configured stores. A Carrier (mover/library/seam.py)."""

    def __init__(
        self,
        door: Door,
        settings: LibrarySettings,
        stores: Sequence[StoreSettings],
        catalogue: str,
        who_has: WhoHas,
    ) -> None:
        self._door = door
        self._lanes = StoreLanes(door)
        self._who_has = who_has
        self._volumes = Volumes(stores)
        self._catalogue = catalogue
        self._settings = settings
        self._stores = {store.id: store for store in stores}

    # -- in --------------------------------------------------------------------------------------------------

    async def receive(self, request: Request, incoming: Incoming) -> Received | Kept:
        """Take the request's body into a store, and publish it when it is whole. Raises CarrierError, ClientGone."""
        store = await self._store_for(incoming)
        async with self._into(store, incoming) as (lane, into):
            return await receive(lane, request, incoming, into)

    async def _store_for(self, incoming: Incoming) -> StoreSettings:
        if incoming.store is not None:
            store = self._store_asked_for(incoming.store)
        elif incoming.offset:
            store = await self._store_that_kept(incoming.image.id)
        else:
            store = next(iter(self._stores.values()))
        if store.read_only:
            raise StoreAddDisabled(f"store {store.id} takes no new images")
        return store

    async def _store_that_kept(self, image_id: str) -> StoreSettings:
        for store in self._stores.values():
            if await self._kept_in(store, image_id) is not None:
                return store
        return next(iter(self._stores.values()))  # which refuses the offset in its own words

    def _store(self, store_id: str) -> StoreSettings:
        """Where a location is. Ids are not reused, schemes name no location."""
        store = self._stores.get(store_id)
        if store is None:
            raise UnknownStore(f"there is no store {store_id[:80]!r}")
        return store

    def _store_asked_for(self, name: str) -> StoreSettings:
        """By its id, or the first one of a scheme."""
        store = store_named(self._stores.values(), name)
        if store is None:
            ids = ", ".join(self._stores)
            raise UnknownStore(f"there is no store {name[:80]!r}: it must be one of {ids}, or a scheme")
        return store

    async def bring(self, source: Disk, incoming: Incoming, progress: Progress, digests: bool = True) -> Received:
        """Take the bytes of a disk, or of an object, into a store. Raises CarrierError."""
        store = await self._store_for(incoming)
        if isinstance(source, Export) and source.transport == "http":
            await urls.check_source(self._lanes.ask_store, self._stores.values(), source.path)
        target = of_image(store, incoming.image.id)
        async with (
            using(self._door, source, writes=False) as disk,
            self._lanes.seat(disk.export, Use.READ, disk.limit),
            self._lanes.seat(target, Use.WRITE),
            self._lanes.lanes_between(disk.export, target) as lanes,
        ):
            pace = self._door.pace(disk.export.key)
            into = Into(store.id, self._catalogue, self._settings, pace, keeps_parts(store))
            return await hauling.bring(lanes, disk, incoming, into, progress, digests)

    async def stage(self, request: Request, incoming: Incoming) -> int:
        """Take the request's body into the first store that keeps parts. Raises CarrierError, ClientGone."""
        store = next((one for one in self._stores.values() if keeps_parts(one) and not one.read_only), None)
        if store is None or not self._settings.keep_s:
            why = "library.keep_s is 0" if store is not None else "there is no file store that can be written"
            raise StoreAddDisabled(f"nothing can be staged here, since {why}: upload the data instead")
        async with self._into(store, incoming) as (lane, into):
            return await stage(lane, request, incoming, into)

    async def publish_staged(self, incoming: Incoming) -> Received:
        """Make an image of what was staged, where it lies. Raises CarrierError, NotThere."""
        away: StoreGone | None = None
        for store in self._stores.values():
            try:
                offset = await self._kept_in(store, incoming.image.id)
            except StoreGone as error:
                away = error  # it need not be the one that has them
                continue
            if offset is not None:
                async with self._into(store, incoming) as (lane, into):
                    return await publish_staged(lane, offset, incoming, into)
        if away is not None:
            raise away
        raise NotThere("nothing is staged on this host, or it was staged too long ago (library.keep_s)")

    @asynccontextmanager
    async def _into(self, store: StoreSettings, incoming: Incoming) -> AsyncIterator[tuple[FrontLane, Into]]:
        export = of_image(store, incoming.image.id)
        async with self._lanes.lane(export, Use.WRITE) as lane:
            pace = self._door.pace(export.key)
            yield lane, Into(store.id, self._catalogue, self._settings, pace, keeps_parts(store))

    async def copy(self, location: Location, incoming: Incoming, progress: Progress) -> Received:
        """Take the bytes of an image into another store. Raises CarrierError."""
        await self._check_here(location)
        store, source = await self._store_for(incoming), self.source(location)
        files = isinstance(self._store(location.store), FileStore) and isinstance(store, FileStore)
        if not files or incoming.size_bytes is None:
            return await self.bring(source, incoming, progress, incoming.md5 is not None)
        target = of_image(store, incoming.image.id)
        async with self._lanes.lane(target, Use.WRITE) as lane:
            into = Into(store.id, self._catalogue, self._settings, self._door.pace(target.key))
            return await hauling.clone(lane, location.uri, incoming, into, progress)

    # -- out -------------------------------------------------------------------------------------------------

    async def send(
        self, request: Request, location: Location, size_bytes: int, span: Span, status: int, headers: Headers
    ) -> Sent:
        """Answer with the bytes of `span`. Raises CarrierError while nothing was sent, BodyBroken after that."""
        await self._check_here(location)
        export = self.source(location)
        if not span.length or request.method == "HEAD":
            return await sanic_seam.reply(request, status, headers)
        try:
            async with self._lanes.lane(export, Use.READ) as lane:
                _check_size(lane, size_bytes)
                urls.check_order(lane, span.offset)
                body = Body(Range(span.offset, span.length))
                sent = await send_body(request, lane, body, status, headers, self._door.pace(export.key))
        except StoreGone as gone:
            await urls.check_there(self._lanes.ask_store, self._store(location.store), location, size_bytes)
            raise gone from gone.__cause__
        except RequestError as error:
            await urls.check_there(self._lanes.ask_store, self._store(location.store), location, size_bytes)
            raise StoreGone(error.message) from error
        log.info("transferred", extra=facts(store=location.store, op="read", offset=span.offset, length=span.length))
        return sent

    async def _check_here(self, location: Location) -> None:
        """Raises Elsewhere for bytes in a directory that this host does not reach, or another of the same path."""
        if not location.volume or location.volume in await self._volumes.here():
            return
        hosts = await self._who_has(location.volume)
        names = ", ".join(host.name for host in hosts) or "a host that is not known any more"
        where = f"in a directory of store {location.store} that this host does not reach: it is on {names}"
        advice = "Ask there, or copy the image to a store that all hosts reach"
        raise Elsewhere(f"the image's data are {where}. {advice}", hosts)

    async def deliver(
        self,
        location: Location,
        size_bytes: int,
        target: Disk,
        progress: Progress,
        disk_format: str | None = None,
    ) -> None:
        """Write an image, or the disk that is in it, onto a disk. Raises CarrierError."""
        await self._check_here(location)
        source = self.source(location)
        has_disk = disk_format in VIEW_FORMATS
        if has_disk:
            source = view_of(source, disk_format or "")
        async with (
            using(self._door, target, writes=True) as disk,
            self._lanes.seat(disk.export, Use.WRITE, disk.limit),
            self._lanes.seat(source, Use.READ),
            self._lanes.lanes_between(source, disk.export) as lanes,
        ):
            if not has_disk:
                _check_size(lanes.source, size_bytes)
            await hauling.deliver(lanes, disk, progress)

    async def refer(self, url: str, store: str | None = None) -> Referred:
        """Look at what a URL names. Raises CarrierError."""
        keeper = urls.store_of_urls(self._stores.values()) if store is None else self._store_asked_for(store)
        return await urls.refer(self._lanes.ask_store, keeper, url)

    def source(self, location: Location) -> Export:
        """The bytes at a location. Raises UnknownStore, NotThere."""
        export = export_of(self._store(location.store), location)
        if export is None:
            raise NotThere("the image's location is none of its store's")
        return export

    # -- tickets ---------------------------------------------------------------------------------------------

    async def readable(self, location: Location, disk_format: str | None) -> Export:
        """What a ticket names to read the image as it is, or, with a disk format, the disk in it.

        Raises CarrierError where the store cannot show it so.
        """
        store = self._store(location.store)
        await self._check_here(location)
        export = self.source(location)
        if export.transport == "http":
            async with self._lanes.lane(export) as lane:
                urls.check_ranges(lane)
        if disk_format is None:
            return export
        if export.transport != "file":
            why = f"the disk in a {disk_format} image is seen in file stores only: download the image as it is"
            raise NotPossible(f"store {store.id} has no files, and {why}")
        return Export("view", path=export.path, name=disk_format)

    async def prepare(self, image: ImageRecord, size_bytes: int, store: str | None) -> tuple[str, Export]:
        """Room for an image that is written at random: its store's id, and what a ticket names. Raises CarrierError."""
        chosen = await self._store_for(Incoming(image, store=store))
        if not isinstance(chosen, FileStore):
            why = "cannot be written at random: name a file store, or upload with PUT of the image's file"
            raise NotPossible(f"store {chosen.id} {why}")
        async with self._lanes.lane(of_image(chosen, image.id)) as lane:
            prepared = await ask(lane, store_format.Prepare(image.id, size_bytes, self._catalogue))
        assert isinstance(prepared, store_format.Prepared)
        return chosen.id, Export("part", path=prepared.path)

    async def finish(self, image: ImageRecord, size_bytes: int, store: str) -> Received:
        """What was prepared is whole: digests, inspection, published. Raises CarrierError, and nothing is left then."""
        settings = self._settings
        question = store_format.Finish(
            image.id,
            settings.hash_algo,
            size_bytes,
            self._catalogue,
            image.disk_format,
            image.container_format,
            settings.backing_files,
        )
        async with self._lanes.lane(of_image(self._store(store), image.id)) as lane:
            published = await ask(lane, question, None)  # a terabyte takes its time to be read
        return received(published, store, settings.hash_algo)

    # -- the rest --------------------------------------------------------------------------------------------

    async def registered(self, image_id: str, location: Location) -> None:
        """Forget that it was an upload. Raises CarrierError; a sweep does it then."""
        async with self._lanes.lane(of_image(self._store(location.store), image_id)) as lane:
            await ask(lane, store_format.Confirm(image_id, location.uri))

    async def remove(self, location: Location) -> None:
        """Remove the bytes; it is no error if there are none. Raises CarrierError, Elsewhere among them."""
        if isinstance(self._store(location.store), HttpStore):
            return  # what is at a URL is not ours
        await self._check_here(location)
        await self._lanes.ask_store(self._store(location.store), store_format.Remove(location.uri))

    async def kept(self, image_id: str) -> int | None:
        """How many bytes of an interrupted upload are there; None if there is none."""
        for store in self._stores.values():
            offset = await self._kept_in(store, image_id)
            if offset is not None:
                return offset
        return None

    async def _kept_in(self, store: StoreSettings, image_id: str) -> int | None:
        if store.read_only or not keeps_parts(store):
            return None
        async with self._lanes.lane(of_image(store, image_id)) as lane:
            kept = await ask(lane, store_format.Look(image_id))
        return kept.offset if isinstance(kept, store_format.Kept) else None

    async def forget(self, image_id: str) -> None:
        """Drop what an interrupted upload has left; it is no error if there is nothing."""
        for store in self._stores.values():
            if not store.read_only and keeps_parts(store):
                async with self._lanes.lane(of_image(store, image_id)) as lane:
                    await ask(lane, store_format.Forget(image_id))

    async def stores(self) -> Sequence[Store]:
        """The stores, the default one first."""
        return [shown(store, number == 0) for number, store in enumerate(self._stores.values())]

    # -- sweeping --------------------------------------------------------------------------------------------

    async def volumes(self) -> frozenset[str]:
        """The directories of file stores that this host reaches, by the names that they bear."""
        return await self._volumes.here()

    async def sweep(self, wanted: Wanted, shared: bool = True) -> int:
        """Remove what crashes have left, and uploads that nobody went on with; how many files. Raises CarrierError.

        Without `shared` only in stores that are directories: the others are every host's.
        """
        removed, failed = 0, None
        for store in self._stores.values():
            if store.read_only or not (shared or isinstance(store, FileStore)):
                continue
            try:
                removed += await self._sweep(store, wanted)
            except CarrierError as error:  # the others are swept all the same
                failed = error
        if failed is not None:
            raise failed
        return removed

    async def _sweep(self, store: StoreSettings, wanted: Wanted) -> int:
        swept = await self._lanes.ask_store(store, store_format.Sweep(self._settings.keep_s, self._catalogue))
        if not isinstance(swept, store_format.Swept):
            return 0
        removed = swept.removed
        for one in swept.unconfirmed:
            if not await wanted(one.image, Location(store.id, one.uri, volume=one.volume), one.upload):
                await self._drop(store, one)
                removed += 1
            elif one.whole and not one.scattered and one.age_s > REGISTERED_S:
                await self._lanes.ask_store(store, store_format.Confirm(one.image, one.uri))
        if removed:
            log.info("swept", extra=facts(store=store.id, files=removed))
        return removed

    async def _drop(self, store: StoreSettings, one: store_format.Unconfirmed) -> None:
        if not one.scattered:
            await self._lanes.ask_store(store, store_format.Abandon(one.uri))
            return
        async with self._lanes.lane(of_image(store, one.image)) as lane:
            await ask(lane, store_format.Forget(one.image))


def _check_size(lane: FrontLane, size_bytes: int) -> None:
    """A file that was cut, or exchanged, is not the image: no byte of it is sent."""
    found = lane.image.size_bytes if lane.image is not None else 0
    if found != size_bytes:
        raise NotThere(f"the store has {found} bytes where the image's {size_bytes} were")
