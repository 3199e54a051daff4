"""Images to and from disks, worker to worker: what a session in a store, or a disk, needs around a haul.

bring      Receive ──► haul into the session ──► Publish      or ROLLBACK, which keeps what may be gone on with
deliver    haul onto the disk ──► FLUSH                       what was lost with its server is hauled again
"""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple

from msgspec.structs import replace

from config.export import Export
from config.log import facts
from mover.front.ranges import Span
from mover.library.bytes.asking import ask
from mover.library.bytes.disks import DiskUse
from mover.library.bytes.errors import from_job, from_lane
from mover.library.bytes.haul import Haul, Onto, reason_of
from mover.library.bytes.receiving import Into, drop, publish
from mover.library.seam import (
    CarrierError,
    DiskRefused,
    Incoming,
    Progress,
    Received,
    SourceGone,
    TargetGone,
    TooLarge,
    WrongOffset,
    WrongSize,
)
from workers.lane import lost_format, store_format
from workers.lane.front_lane import FrontLane
from workers.lane.lane_states import LaneLost
from workers.lane.protocol import Completion, Flag, ImageFacts, Kind, Status
from workers.lane.store_format import Receive

log = logging.getLogger(__name__)

# Hashed in a few ms, so that progress is told, and a cancelled haul ends; with nothing to hash there is no such step.
HASHED_ZEROS_BYTES = 16 * 1024 * 1024
# Copied by the kernel in a second or so, after which progress is told.
CLONED_BYTES = 256 * 1024 * 1024
# How often a disk's server may be lost, and what it lost be written again, before that is an error.
LOSSES_MOST = 3


class Told:
    """Counts the bytes that are done, and tells; what is moved a second time counts once."""

    def __init__(self, progress: Progress, disk: DiskUse, done: int, size: int | None) -> None:
        self._progress = progress
        self._disk = disk
        self._start = self._done = done
        self._size = size
        progress(done, size)

    def moved(self, count: int) -> None:
        """So many bytes more."""
        self._done += count
        if self._size is not None:
            self._done = min(self._done, self._size)
        self._disk.moved = Span(self._start, self._done - self._start)
        self._progress(self._done, self._size)


class Lanes(NamedTuple):
    """Both ways of a haul; `writes` is where the target's leads."""

    source: FrontLane
    target: FrontLane
    writes: Export

    def gone(self, lost: LaneLost) -> CarrierError:
        """Whose end it was that was lost."""
        if lost is self.source.lost:
            return SourceGone(f"the source cannot be reached: {lost.reason}", lost.retry_after_s)
        if self.writes.of_library:
            return from_lane(lost)
        return TargetGone(f"the target cannot be reached: {lost.reason}", lost.retry_after_s)


async def bring(
    lanes: Lanes, disk: DiskUse, incoming: Incoming, into: Into, progress: Progress, digests: bool
) -> Received:
    """The disk's bytes into a store. Raises CarrierError, LaneLost."""
    assert lanes.source.image is not None
    if lanes.source.image.whole_file:
        raise DiskRefused("the source is a file that is read as a whole: name a disk")
    settings, target, offset = into.settings, lanes.target, incoming.offset
    most = settings.image_size_limit_bytes
    unsized = lanes.source.image.unsized
    # Of a source without a size one byte more is read than may be: then it is known to be too large.
    size = most + 1 if unsized else disk.size_of(lanes.source.image)
    if not unsized:
        _check_size(size, incoming, most)
    digests = digests or incoming.md5 is not None
    # A directory need not have room for holes, and how many there are nobody knows yet.
    room = None if unsized or (into.keeps_parts and lanes.source.image.has_extents) else size
    asked = Receive(
        incoming.image.id,
        settings.hash_algo,
        into.catalogue,
        offset,
        room,
        incoming.resumable and into.keeps_parts and settings.keep_s > 0,
        digests,
    )
    receiving = await ask(target, asked)
    assert isinstance(receiving, store_format.Receiving)
    session = receiving.session
    onto = Onto(target, from_job, session, zero_bytes=HASHED_ZEROS_BYTES if digests or not into.keeps_parts else size)
    told = Told(progress, disk, offset, None if unsized else size)
    try:
        haul = Haul(lanes.source, Span(offset, size - offset), onto, told.moved, disk.meter)
        await haul.run()
        size = haul.end
        if size > most:
            raise TooLarge(f"the source has more than {most} bytes, which are the most that is taken")
        if unsized:
            _check_size(size, incoming, most)
            progress(size, size)
        log.info("transferred", extra=facts(store=into.store, op="bring", offset=offset, length=size - offset))
        return await publish(target, session, replace(incoming, size_bytes=size), into)
    except (asyncio.CancelledError, LaneLost, SourceGone):
        await drop(target, session, Flag.KEEP)
        raise
    except BaseException:
        await drop(target, session)
        raise


def _check_size(size: int, incoming: Incoming, most: int) -> None:
    if incoming.size_bytes not in (None, size):
        raise WrongSize(f"the source has {size} bytes, {incoming.size_bytes} were announced")
    if size > most:
        raise TooLarge(f"the source has {size} bytes, {most} are the most that is taken")
    if incoming.offset > size:
        raise WrongOffset(f"the source has {size} bytes, fewer than {incoming.offset} are kept of it", 0)


async def clone(lane: FrontLane, uri: str, incoming: Incoming, into: Into, progress: Progress) -> Received:
    """Another file store's image into this one, by the store's worker alone. Raises CarrierError, LaneLost.

    Its MD5 is taken over, not computed: reading all of it again would take the time that this saves.
    """
    size, settings = incoming.size_bytes, into.settings
    assert size is not None
    keep = incoming.resumable and settings.keep_s > 0
    offset, meter = incoming.offset, into.pace.meter
    asked = Receive(incoming.image.id, settings.hash_algo, into.catalogue, offset, None, keep, digests=False)
    receiving = await ask(lane, asked)
    assert isinstance(receiving, store_format.Receiving)
    session = receiving.session
    try:
        progress(offset, size)
        while offset < size:
            most = CLONED_BYTES
            if meter is not None and meter.limited:
                most = meter.step_bytes
                await meter.ready(most)
            cloned = await ask(lane, store_format.Clone(session, uri, size, most), None)
            assert isinstance(cloned, store_format.Cloned)
            offset = cloned.offset
            if meter is not None:
                meter.moved(most)
            progress(offset, size)
        log.info("transferred", extra=facts(store=into.store, op="copy", offset=incoming.offset, length=size))
        published = await publish(lane, session, replace(incoming, md5=None), into)
        return replace(published, md5=incoming.md5)
    except (asyncio.CancelledError, LaneLost):
        await drop(lane, session, Flag.KEEP)
        raise
    except BaseException:
        await drop(lane, session)
        raise
    finally:
        if meter is not None:
            meter.close()


async def deliver(lanes: Lanes, disk: DiskUse, progress: Progress) -> None:
    """All bytes of the source onto the disk, durably; what the disk has beyond them stays as it is.

    Raises CarrierError, LaneLost.
    """
    source, target, transfer = lanes.source, lanes.target, disk.transfer
    assert source.image is not None
    assert target.image is not None
    size = source.image.size_bytes
    _check_disk(target.image, disk.size_of(target.image), size)
    onto = Onto(target, _disk_failed, transfer=transfer, flags=Flag.MAY_HOLE if disk.sparse else Flag.NONE)
    told = Told(progress, disk, 0, size)
    spans = [Span(0, size)]
    for _ in range(1 + LOSSES_MOST):
        for span in spans:
            await Haul(source, span, onto, told.moved, disk.meter).run()
        spans = await _flush(target, transfer, size)
        if not spans:
            log.info("transferred", extra=facts(transfer=transfer, op="deliver", offset=0, length=size))
            return
        log.warning("a disk's server was lost with what it had", extra=facts(ranges=len(spans)))
    raise TargetGone("the disk's server was lost again and again with bytes that were not flushed")


def _check_disk(disk: ImageFacts, room: int, size: int) -> None:
    if disk.whole_file or disk.store:
        raise DiskRefused("the target is a file that is replaced as a whole: name a disk")
    if disk.read_only:
        raise DiskRefused("the target is read-only")
    if room < size:
        raise DiskRefused(f"the target has {room} bytes, the image has {size}: choose a larger disk")


async def _flush(target: FrontLane, transfer: int, size: int) -> list[Span]:
    """Make durable what was written; what was lost before that, within `size`. Raises CarrierError, LaneLost."""
    assert target.image is not None
    if not target.image.can_flush:
        return []
    completion = await target.run(Kind.FLUSH, transfer=transfer)
    if completion.status is Status.LOST:
        return await _lost(target, transfer, size)
    if completion.status is not Status.OK:
        raise _disk_failed(completion)
    return []


async def _lost(target: FrontLane, transfer: int, size: int) -> list[Span]:
    """Which bytes went with the server that had them; they are struck off the ledger."""
    holder = target.slots.enter()
    try:
        slot = await target.take_slot(holder)
        completion = await target.run(Kind.LOST, slot=slot, transfer=transfer)
        losses, lost = lost_format.unpack(target.views[slot][: completion.value])
        target.give_back(slot)
    finally:
        target.slots.leave(holder)
    await target.run(Kind.TOLD, losses, transfer=transfer)
    return [Span(offset, min(length, size - offset)) for offset, length in lost if offset < size]


def _disk_failed(completion: Completion) -> CarrierError:
    return TargetGone(f"the target cannot be written: {reason_of(completion)}")
