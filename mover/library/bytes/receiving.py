"""One body of an image: its session in the store, its bytes, and what becomes of both.

whole                       Publish ──► Received
ended before the whole      Keep    ──► Kept         if it may be gone on with
client gone                 ROLLBACK, keeping what has come if it may be gone on with
anything else               ROLLBACK, and nothing is left when the client hears of it
"""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple

from sanic import Request

from config.log import facts
from config.settings import LibrarySettings
from mover.front.errors import ClientGone
from mover.front.pace import Pace
from mover.front.ranges import Span
from mover.front.upload import Upload
from mover.library.bytes.asking import ask, roll_back
from mover.library.bytes.errors import from_job
from mover.library.records import Location
from mover.library.seam import Incoming, Kept, Received, StoreGone, TooLarge, WrongSize
from workers.lane import store_format
from workers.lane.front_lane import FrontLane, InFlight
from workers.lane.lane_states import LaneLost
from workers.lane.protocol import Completion, Flag
from workers.lane.store_format import Publish, Receive

log = logging.getLogger(__name__)


class Receiving(Upload):
    """A body on its way into a session; `size` is the whole image's, None if nobody has said."""

    def __init__(
        self, lane: FrontLane, request: Request, span: Span, session: int, size: int | None, pace: Pace
    ) -> None:
        super().__init__(lane, request, span, 0, Flag.NONE, pace, session)
        self._size = size

    def too_long(self) -> Exception:
        """There is more than was announced, or than may be."""
        end = self._end
        if self._size is not None:
            return WrongSize(f"the image has more than the {end} bytes that were announced")
        return TooLarge(f"the image has more than {end} bytes, the largest that is taken")

    def failed(self, completion: Completion, in_flight: InFlight) -> Exception:
        """The store's own errors."""
        return from_job(completion)


class Into(NamedTuple):
    """Where to, and under which settings; `keeps_parts` of an upload that breaks off."""

    store: str
    catalogue: str
    settings: LibrarySettings
    pace: Pace
    keeps_parts: bool = True


async def receive(lane: FrontLane, request: Request, incoming: Incoming, into: Into) -> Received | Kept:
    """Take the request's body. Raises CarrierError, LaneLost, ClientGone."""
    settings = into.settings
    size, most = _check_sizes(incoming, settings)
    if not into.keeps_parts and size is not None and incoming.length not in (None, size):
        raise WrongSize(f"store {into.store} takes no image in parts: send all {size} bytes in one request")
    keep = incoming.resumable and into.keeps_parts and settings.keep_s > 0
    upload = incoming.image.upload or ""
    asked = Receive(incoming.image.id, settings.hash_algo, into.catalogue, incoming.offset, size, keep, upload=upload)
    receiving = await ask(lane, asked)
    assert isinstance(receiving, store_format.Receiving)
    session = receiving.session
    try:
        end = incoming.offset
        if incoming.length != 0:
            span = Span(incoming.offset, most - incoming.offset if incoming.length is None else incoming.length)
            end = await Receiving(lane, request, span, session, size, into.pace).run()
        log.info(
            "transferred",
            extra=facts(store=into.store, op="write", offset=incoming.offset, length=end - incoming.offset),
        )
        if size is not None and end < size and incoming.resumable:
            return await _keep(lane, session)
        return await publish(lane, session, incoming, into)
    except (asyncio.CancelledError, ClientGone):
        roll_back(lane, session, Flag.KEEP)
        raise
    except BaseException:
        await drop(lane, session)
        raise


async def stage(lane: FrontLane, request: Request, incoming: Incoming, into: Into) -> int:
    """Take the body as a part that is not published yet, unhashed; its bytes. Raises as `receive` does."""
    size, most = _check_sizes(incoming, into.settings)
    asked = Receive(incoming.image.id, into.settings.hash_algo, into.catalogue, 0, None, True, False)
    receiving = await ask(lane, asked)
    assert isinstance(receiving, store_format.Receiving)
    session = receiving.session
    try:
        end = 0
        if incoming.length != 0:
            span = Span(0, most if incoming.length is None else incoming.length)
            end = await Receiving(lane, request, span, session, size, into.pace).run()
        if not end or (size is not None and end < size):
            raise WrongSize(f"{end} bytes came, {'at least one is' if size is None else f'{size} were'} expected")
        kept = await _keep(lane, session)
    except BaseException:
        await asyncio.shield(drop(lane, session))
        raise
    log.info("transferred", extra=facts(store=into.store, op="stage", offset=0, length=end))
    return kept.offset


async def publish_staged(lane: FrontLane, offset: int, incoming: Incoming, into: Into) -> Received:
    """Hash the part that was staged, and publish it. Raises CarrierError, LaneLost."""
    asked = Receive(incoming.image.id, into.settings.hash_algo, into.catalogue, offset, None, True)
    receiving = await ask(lane, asked)
    assert isinstance(receiving, store_format.Receiving)
    try:
        return await publish(lane, receiving.session, incoming, into)
    except asyncio.CancelledError:
        await drop(lane, receiving.session, Flag.KEEP)
        raise


def _check_sizes(incoming: Incoming, settings: LibrarySettings) -> tuple[int | None, int]:
    """The whole image's size, if it is known, and the most that it may be. Raises WrongSize, TooLarge."""
    size, limit = incoming.size_bytes, settings.image_size_limit_bytes
    if incoming.length is not None:
        end = incoming.offset + incoming.length
        size = end if size is None else size
        if end > size or (end < size and not incoming.resumable):
            raise WrongSize(f"the image has {end} bytes, {size} were announced")
    if size is not None and size > limit:
        raise TooLarge(f"the image has {size} bytes, {limit} are the most that is taken")
    return size, limit if size is None else size


async def _keep(lane: FrontLane, session: int) -> Kept:
    kept = await ask(lane, store_format.Keep(session), None)
    if not isinstance(kept, store_format.Kept) or kept.offset is None:
        raise StoreGone("the upload was not kept")
    return Kept(kept.offset)


async def publish(lane: FrontLane, session: int, incoming: Incoming, into: Into) -> Received:
    """Check it and have it seen; the session is over then. Raises CarrierError, LaneLost."""
    image, settings = incoming.image, into.settings
    question = Publish(
        session,
        incoming.size_bytes,
        incoming.md5,
        image.disk_format,
        image.container_format,
        settings.backing_files,
    )
    # A terabyte takes its time to the disk; the client waits as long as it likes.
    published = await ask(lane, question, None)
    return received(published, into.store, settings.hash_algo)


def received(published: store_format.Answer, store: str, hash_algo: str) -> Received:
    """What the views are told of an image that was published."""
    assert isinstance(published, store_format.Published)
    location = Location(store, published.uri, published.metadata, volume=published.volume)
    return Received(location, published.size, published.md5, hash_algo, published.hash_value, published.virtual_size)


async def drop(lane: FrontLane, session: int, flags: Flag = Flag.NONE) -> None:
    """Nothing but what KEEP keeps is left when this returns, unless the store does not answer."""
    in_flight = roll_back(lane, session, flags)
    if in_flight is not None:
        try:
            async with asyncio.timeout(10):
                await asyncio.shield(in_flight.done)
        except LaneLost:
            pass  # which has ended it
        except TimeoutError:
            log.warning("a store is slow to drop an upload")
