"""Transfers: tickets by which clients read the extents of an image, or write one at random, through `/images/TICKET`.

    open    row OPENING ──► (upload: image QUEUED -> SAVING ──► room in the store) ──► ticket ──► row OPEN
    close   row CLOSING ──► ticket revoked ──► (upload: digests, inspection, published ──► image ACTIVE) ──► no row
    drop                    ticket revoked ──► (upload: what has come goes ──► image QUEUED) ──► no row

Each step can be done again: what a process that dies leaves in OPENING is dropped, what it leaves in CLOSING is closed,
by the rounds of its host (`tend`). An upload holds its image by a token, as any other does.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from config.export import Export
from config.log import facts
from mover.library import liveness, uploads
from mover.library.errors import ApiError
from mover.library.library import TRANSFER, Library
from mover.library.records import ImageRecord, Transfer, TransferState
from mover.library.seam import CarrierError, Elsewhere, NotThere, StoreGone, TicketDesk
from mover.library.states import READABLE, State
from mover.serve.messages import Grant, Granted, GrantUse
from workers.lane.lane_states import LaneLost

if TYPE_CHECKING:
    from mover.library.registry.registry import Registry

log = logging.getLogger(__name__)

AGAIN_S = 1.0


async def open_download(
    library: Library, image: ImageRecord, transfer: Transfer, disk_format: str | None, inactivity_s: int | None
) -> Transfer:
    """A ticket to read an image as it is, or the disk in it. Raises ApiError, CarrierError."""
    export = await _readable(library, image, disk_format)
    return await _opening(library, transfer, lambda added: _grant(library, added, export, inactivity_s))


async def _readable(library: Library, image: ImageRecord, disk_format: str | None) -> Export:
    """Of the first copy that this host reaches. Raises CarrierError."""
    *others, last = image.copies
    for location in others:
        try:
            return await library.carrier.readable(location, disk_format)
        except Elsewhere:
            pass
    return await library.carrier.readable(last, disk_format)


async def open_upload(
    library: Library, image: ImageRecord, transfer: Transfer, store: str | None, inactivity_s: int | None
) -> Transfer:
    """A ticket to write an image that is QUEUED. Raises ApiError 409 for others, CarrierError."""

    async def prepare(added: Transfer) -> Transfer:
        held = await _claim(library, added)
        store_id, export = await library.carrier.prepare(held, added.size_bytes, store)
        return await _grant(library, replace(added, store=store_id, upload=held.upload), export, inactivity_s)

    return await _opening(library, transfer, prepare)


async def _opening(library: Library, transfer: Transfer, grant: Callable[[Transfer], Awaitable[Transfer]]) -> Transfer:
    await library.ask(lambda registry: None)  # from here on, host and holder are known
    added = replace(transfer, host=library.host, worker=liveness.own_identity())
    await library.ask(lambda registry: registry.transfers.add(added))
    try:
        opened = await uploads.finish(grant(added))
    except BaseException:
        await uploads.finish(drop(library, added))
        raise
    log.info("transfer opened", extra=facts(image=opened.image_id, direction=opened.direction, format=opened.format))
    return opened


async def _claim(library: Library, transfer: Transfer) -> ImageRecord:
    for attempt in (1, 2):
        held = await library.ask(partial(_begin, transfer=transfer))
        if held is not None:
            return held
        if attempt == 2 or not await library.release_dead():
            break
    why = "it is being uploaded, has its data already, or is gone"
    raise ApiError(409, f"Image {transfer.image_id} is not queued: {why}")


def _begin(registry: Registry, transfer: Transfer) -> ImageRecord | None:
    return registry.begin_upload(transfer.image_id, frozenset({State.QUEUED}), holder(transfer))


def holder(transfer: Transfer) -> str:
    """What the registry says of who receives the image."""
    return f"{transfer.host}/{TRANSFER}{transfer.id}"


async def _grant(library: Library, transfer: Transfer, export: Export, inactivity_s: int | None) -> Transfer:
    ticket = Grant(
        0, transfer.ticket, export, transfer.is_upload, transfer.size_bytes, transfer.timeout_s, inactivity_s
    )
    await _ordered(desk_of(library).grant(ticket))
    moved = await _move(library, transfer, TransferState.OPENING, TransferState.OPEN, None)
    if moved is None:
        raise ApiError(409, "The transfer was ended while it began")
    return moved


async def _ordered(order: Awaitable[Granted]) -> Granted:
    try:
        granted = await order
    except LaneLost as lost:
        raise StoreGone(f"no ticket can be had: {lost.reason}", lost.retry_after_s or AGAIN_S) from lost
    if granted.error is not None:
        raise StoreGone(f"no ticket can be had: {granted.error}", AGAIN_S)
    return granted


def desk_of(library: Library) -> TicketDesk:
    """Who has the tickets."""
    assert library.desk is not None
    return library.desk


async def _move(
    library: Library, transfer: Transfer, from_state: TransferState, state: TransferState, worker: str | None
) -> Transfer | None:
    return await library.ask(lambda registry: registry.transfers.move(transfer, [from_state], state, worker))


# -- the end -------------------------------------------------------------------------------------------------------


async def close(library: Library, transfer: Transfer, abort: bool = False) -> None:
    """End a transfer: an upload's image is ACTIVE then, or QUEUED with `abort` or when its data is refused.

    Raises ApiError, CarrierError; after StoreGone it may be asked again.
    """
    taken = await _take(library, transfer)
    if taken is None:
        raise ApiError(409, "The transfer is being closed")
    if abort or not taken.is_upload:
        await uploads.finish(_or_again(library, taken, drop(library, taken)))
    else:
        await uploads.finish(_or_again(library, taken, _publish(library, taken)))


async def _take(library: Library, transfer: Transfer) -> Transfer | None:
    """Whoever of several closes it."""
    busy = transfer.worker is not None and liveness.is_alive(transfer.worker)
    if transfer.state is TransferState.OPENING or (transfer.state is TransferState.CLOSING and busy):
        return None
    return await _move(library, transfer, transfer.state, TransferState.CLOSING, liveness.own_identity())


async def _or_again(library: Library, transfer: Transfer, work: Awaitable[None]) -> None:
    """What could not be done now can be done by the next who closes it, or by a round."""
    try:
        await work
    except BaseException:
        # Where nothing is left of it, this finds nothing.
        await _move(library, transfer, TransferState.CLOSING, TransferState.CLOSING, None)
        raise


async def _publish(library: Library, transfer: Transfer) -> None:
    assert transfer.store is not None
    await _ordered(desk_of(library).revoke(transfer.ticket))
    image = await library.ask(lambda registry: registry.get(transfer.image_id))
    if image is None or not _holds(transfer, image):
        await drop(library, transfer)
        raise ApiError(410, f"Image {transfer.image_id} was deleted while its data was uploaded")
    try:
        received = await library.carrier.finish(image, transfer.size_bytes, transfer.store)
    except StoreGone:
        raise
    except CarrierError:
        await drop(library, transfer)
        raise
    try:
        await uploads.publish(library, image, received, 410)
    finally:
        await _remove(library, transfer)


def _holds(transfer: Transfer, image: ImageRecord) -> bool:
    return image.state is State.SAVING and image.upload == transfer.upload


async def drop(library: Library, transfer: Transfer) -> None:
    """Nothing of a transfer is left: no ticket, no bytes, and its image may be uploaded again."""
    await _ordered(desk_of(library).revoke(transfer.ticket))
    if transfer.is_upload:
        # Another upload of the image may have begun; what ours has left then, that one or a sweep removes.
        if await library.ask(lambda registry: registry.transfers.has_image(transfer, holder(transfer))):
            await _forget(library, transfer)
        await library.ask(lambda registry: registry.release(holder(transfer)))
    await _remove(library, transfer)


async def _forget(library: Library, transfer: Transfer) -> None:
    try:
        await library.carrier.forget(transfer.image_id)
    except NotThere:
        pass
    except CarrierError as error:
        log.warning("a store could not drop an upload yet", extra=facts(image=transfer.image_id, reason=error.message))


async def _remove(library: Library, transfer: Transfer) -> None:
    await library.ask(lambda registry: registry.transfers.remove(transfer.id))
    log.info("transfer ended", extra=facts(image=transfer.image_id, direction=transfer.direction))


async def end_all(library: Library, image_id: str) -> None:
    """The image was deleted: its transfers of this host end; those of others, with their next round."""
    for transfer in await library.ask(lambda registry: registry.transfers.of_image(image_id)):
        if transfer.host == library.host:
            await _quietly(drop(library, transfer), transfer)


async def end_downloads(library: Library, image_id: str) -> None:
    """The image is not for everybody any more: who may read it by ticket asks again. Other hosts' rounds end theirs."""
    for transfer in await library.ask(lambda registry: registry.transfers.of_image(image_id)):
        if transfer.is_upload:
            continue
        if transfer.host == library.host:
            await _quietly(drop(library, transfer), transfer)
        else:
            await _move(library, transfer, TransferState.OPEN, TransferState.CLOSING, None)


async def tend(library: Library) -> None:
    """One round: what has expired is dropped, what nobody can go on with, too, and what was being closed is closed."""
    if library.desk is None:
        return
    # In this order: a transfer is known before its ticket is in force, and until after that.
    granted = await _ordered(library.desk.inquire(None))
    transfers = await library.ask(lambda registry: registry.transfers.of_host(library.host))
    uses = {use.id: use for use in granted.uses}
    for ticket in uses.keys() - {transfer.ticket for transfer in transfers}:
        # Other hosts took this one for dead, and have ended it.
        log.warning("a ticket whose transfer is gone is ended")
        await _ordered(library.desk.revoke(ticket))
    for transfer in transfers:
        if transfer.state is TransferState.CLOSING:
            if transfer.worker is None or not liveness.is_alive(transfer.worker):
                await _quietly(close(library, transfer), transfer)
        elif transfer.state is TransferState.OPENING:
            if transfer.worker is None or not liveness.is_alive(transfer.worker):
                await _quietly(drop(library, transfer), transfer)
        elif not await _goes_on(library, transfer, uses.get(transfer.ticket)):
            await _quietly(drop(library, transfer), transfer)


async def uses_of(library: Library, transfers: Sequence[Transfer]) -> dict[str, GrantUse]:
    """How these are used, by their tickets; of those that have none any more, nothing. Raises StoreGone."""
    granted = await _ordered(desk_of(library).inquire([transfer.ticket for transfer in transfers]))
    return {use.id: use for use in granted.uses}


async def _goes_on(library: Library, transfer: Transfer, use: GrantUse | None) -> bool:
    if use is None or not use.in_force:
        log.info("transfer expired", extra=facts(image=transfer.image_id, direction=transfer.direction))
        return False
    image = await library.ask(lambda registry: registry.get(transfer.image_id))
    if image is None:
        return False
    return _holds(transfer, image) if transfer.is_upload else image.state in READABLE


async def _quietly(work: Awaitable[None], transfer: Transfer) -> None:
    """Nobody waits for it: another round follows where it may be tried again."""
    try:
        await work
    except (ApiError, CarrierError, LaneLost) as error:
        log.warning("a transfer's end", extra=facts(image=transfer.image_id, reason=getattr(error, "message", error)))


def new(image: ImageRecord, direction: str, view: str, size_bytes: int, timeout_s: int, tenant: str | None) -> Transfer:
    """A transfer that nobody knows of yet."""
    names = [str(uuid.uuid4()) for _ in range(2)]
    return Transfer(
        names[0], image.id, names[1], "", TransferState.OPENING, direction, view, size_bytes, timeout_s, tenant=tenant
    )
