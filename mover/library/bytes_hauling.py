"""Images to and from disks, worker to worker: what a session in a store, or a disk, needs around a haul.

bring      Receive ──► haul into the session ──► Publish      or ROLLBACK, which keeps what may be gone on with
deliver    haul onto the disk ──► FLUSH                       what was lost with its server is hauled again
"""

from __future__ import annotations

import asyncio
import logging

from config.log import facts
from mover.front.meter import Meter
from mover.front.ranges import Span
from mover.library.bytes_asking import ask
from mover.library.bytes_errors import from_job, from_lane
from mover.library.bytes_receiving import Into, drop, publish
from mover.library.haul import Haul, Onto, reason_of
from mover.library.seam import (
    CarrierError,
    DiskRefused,
    Incoming,
    Progress,
    Received,
    SourceGone,
    TargetGone,
    TooLarge,
    WrongSize,
)
from workers.lane import lost_format, store_format
from workers.lane.front_lane import FrontLane, LaneLost
from workers.lane.protocol import Completion, Flag, ImageFacts, Kind, Status
from workers.lane.store_format import Receive

log = logging.getLogger(__name__)

# Hashed in a few ms, so that progress is told, and a cancelled haul ends; with nothing to hash there is no such step.
HASHED_ZEROS_BYTES = 16 * 1024 * 1024
# How often a disk's server may be lost, and what it lost be written again, before that is an error.
FLUSHES_MOST = 3


class Told:
    """Counts the bytes that are done, and tells."""

    def __init__(self, progress: Progress, done: int, size: int) -> None:
        self._progress = progress
        self._done = done
        self._size = size
        progress(done, size)

    def moved(self, count: int) -> None:
        """So many bytes more."""
        self._done += count
        self._progress(self._done, self._size)


async def bring(
    source: FrontLane, target: FrontLane, size: int, incoming: Incoming, into: Into, progress: Progress, digests: bool
) -> Received:
    """The first `size` bytes of the source into a store. Raises CarrierError."""
    if incoming.size_bytes not in (None, size):
        raise WrongSize(f"the source has {size} bytes, {incoming.size_bytes} were announced")
    if size > into.settings.image_size_limit_bytes:
        raise TooLarge(
            f"the source has {size} bytes, {into.settings.image_size_limit_bytes} are the most that is taken"
        )
    try:
        return await _bring(source, target, size, incoming, into, progress, digests)
    except LaneLost as lost:
        raise _source_lost(lost) if lost is source.lost else from_lane(lost) from lost


async def _bring(
    source: FrontLane, target: FrontLane, size: int, incoming: Incoming, into: Into, progress: Progress, digests: bool
) -> Received:
    settings, offset = into.settings, incoming.offset
    keep = incoming.resumable and into.keeps_parts and settings.keep_s > 0
    digests = digests or incoming.md5 is not None
    asked = Receive(incoming.image.id, settings.hash_algo, into.catalogue, offset, size, keep, digests)
    receiving = await ask(target, asked)
    assert isinstance(receiving, store_format.Receiving)
    session = receiving.session
    zero_bytes = HASHED_ZEROS_BYTES if digests or not into.keeps_parts else size
    onto = Onto(target, from_job, session, zero_bytes=zero_bytes)
    told = Told(progress, offset, size)
    try:
        await Haul(source, Span(offset, size - offset), onto, told.moved, into.pace.meter).run()
        log.info("transferred", extra=facts(store=into.store, op="bring", offset=offset, length=size - offset))
        return await publish(target, session, incoming, into)
    except (asyncio.CancelledError, LaneLost, SourceGone):
        await drop(target, session, Flag.KEEP)
        raise
    except BaseException:
        await drop(target, session)
        raise


async def deliver(
    source: FrontLane, target: FrontLane, size: int, progress: Progress, meter: Meter, sparse: bool, transfer: int = 0
) -> None:
    """The first `size` bytes of an image onto a disk, durably; what the disk has beyond them stays as it is.

    `sparse` lets its server give back the space of zeros. Raises CarrierError.
    """
    assert target.image is not None
    _check_disk(target.image, size)
    onto = Onto(target, _disk_failed, transfer=transfer, flags=Flag.MAY_HOLE if sparse else Flag.NONE)
    told = Told(progress, 0, size)
    try:
        await Haul(source, Span(0, size), onto, told.moved, meter).run()
        for _ in range(FLUSHES_MOST):
            lost = await _flush(target, transfer, size)
            if not lost:
                break
            log.warning("a disk's server was lost with what it had", extra=facts(ranges=len(lost)))
            for span in lost:
                await Haul(source, span, onto, _nobody, meter).run()
        else:
            raise TargetGone("the disk's server was lost again and again with bytes that were not flushed")
    except LaneLost as lost:
        raise _image_lost(lost) if lost is source.lost else _target_lost(lost) from lost
    log.info("transferred", extra=facts(transfer=transfer, op="deliver", offset=0, length=size))


def _nobody(count: int) -> None:
    """These bytes were counted before."""


def _check_disk(disk: ImageFacts, size: int) -> None:
    if disk.whole_file or disk.store:
        raise DiskRefused("the target is a file that is replaced as a whole: name a disk")
    if disk.read_only:
        raise DiskRefused("the target is read-only")
    if disk.size_bytes < size:
        raise DiskRefused(f"the target has {disk.size_bytes} bytes, the image has {size}: choose a larger disk")


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


def _source_lost(lost: LaneLost) -> CarrierError:
    return SourceGone(f"the source cannot be reached: {lost.reason}", lost.retry_after_s)


def _image_lost(lost: LaneLost) -> CarrierError:
    return from_lane(lost)


def _target_lost(lost: LaneLost) -> CarrierError:
    return TargetGone(f"the target cannot be reached: {lost.reason}", lost.retry_after_s)


def _disk_failed(completion: Completion) -> CarrierError:
    return TargetGone(f"the target cannot be written: {reason_of(completion)}")
