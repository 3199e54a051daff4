"""An upload from its claim on the image to its end, whichever that is; all views use it, each with its own failure."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

from sanic import Request

from config.log import facts
from mover.library.errors import ApiError
from mover.library.library import Library
from mover.library.records import ImageRecord, Location
from mover.library.seam import CarrierError, Incoming, Kept, Received
from mover.library.states import State

if TYPE_CHECKING:
    from mover.library.registry.registry import Registry

log = logging.getLogger(__name__)

T = TypeVar("T")

_QUEUED = frozenset({State.QUEUED})
_SAVING = frozenset({State.SAVING})
# How long a failed upload may wait for the registry to say so, before a sweep has to.
SETTLE_S = 30.0


async def receive(
    library: Library,
    request: Request,
    incoming: Incoming,
    failed_state: State,
    gone_status: int,
    from_states: frozenset[State] = _QUEUED,
) -> ImageRecord | Kept:
    """Receive the body as the image's data; the image when it is ACTIVE, or what is kept until the rest comes.

    A failure leaves the image in `failed_state`. Raises ApiError: 409 if the image is in none of `from_states`,
    `gone_status` if it was deleted meanwhile; CarrierError; ClientGone.
    """
    image = await claim(library, incoming.image, from_states)
    held = Incoming(
        image=image,
        offset=incoming.offset,
        length=incoming.length,
        size_bytes=incoming.size_bytes,
        md5=incoming.md5,
        store=incoming.store,
        resumable=incoming.resumable,
    )
    try:
        received = await library.carrier.receive(request, held)
    except BaseException:
        # A client that leaves cancels this task: the registry must be told all the same.
        await finish(leave(library, image, State.QUEUED if incoming.resumable else failed_state))
        raise
    if isinstance(received, Kept):
        await finish(leave(library, image, State.QUEUED))
        return received
    return await finish(publish(library, image, received, gone_status))


async def claim(
    library: Library, image: ImageRecord, from_states: frozenset[State], to_state: State = State.SAVING
) -> ImageRecord:
    """Of several uploads one gets the image, the others 409."""
    for attempt in (1, 2):
        claimed = await library.ask(
            lambda registry: registry.begin_upload(image.id, from_states, library.holder, to_state)
        )
        if claimed is not None:
            return claimed
        # Perhaps it is held by a front end that has just died; nobody has looked since.
        if attempt == 2 or not await library.release_dead():
            break
    raise ApiError(409, f"Image {image.id} is not queued: it is being uploaded, has its data already, or is gone")


async def publish(library: Library, image: ImageRecord, received: Received, gone_status: int) -> ImageRecord:
    try:
        active = await library.ask(lambda registry: _activate(registry, image, received))
    except BaseException:
        await leave(library, image, State.QUEUED)
        await _discard(library, received.location)
        raise
    if active is None:
        await _discard(library, received.location)
        raise ApiError(gone_status, f"Image {image.id} was deleted while its data was uploaded")
    await _confirm(library, image, received.location)
    log.info("library image active", extra=facts(image=image.id, length=received.size_bytes))
    return active


def _activate(registry: Registry, image: ImageRecord, received: Received) -> ImageRecord | None:
    return registry.move(
        image.id,
        _SAVING,
        State.ACTIVE,
        held_by=image.upload,
        location=received.location,
        size_bytes=received.size_bytes,
        virtual_size_bytes=received.virtual_size_bytes,
        md5=received.md5,
        hash_algo=received.hash_algo if received.hash_value is not None else None,
        hash_value=received.hash_value,
    )


async def _confirm(library: Library, image: ImageRecord, location: Location) -> None:
    """The store need not remember the upload any more; a sweep tells it if this fails."""
    try:
        await library.carrier.registered(image.id, location)
    except CarrierError as error:
        log.warning("a store was not told of an image", extra=facts(image=image.id, reason=error.message))


async def leave(library: Library, image: ImageRecord, state: State, from_states: frozenset[State] = _SAVING) -> None:
    """The image is not being uploaded any more."""
    try:
        await library.ask(lambda registry: registry.move(image.id, from_states, state, held_by=image.upload))
    except Exception as error:  # noqa: BLE001 - the upload's own error is the one to tell; this one is in the log
        log.error("a failed upload could not be noted", extra=facts(image=image.id, reason=repr(error)))


async def _discard(library: Library, location: Location) -> None:
    """Bytes that no image has: the store's sweep finds them if this fails."""
    try:
        await library.carrier.remove(location)
    except CarrierError as error:
        log.error("bytes of no image could not be removed", extra=facts(uri=location.uri, reason=error.message))


async def finish(work: Awaitable[T]) -> T:
    """Await work that must not end in the middle when the client leaves and its task is cancelled."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=SETTLE_S)
        raise
