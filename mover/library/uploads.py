"""An upload from its claim on the image to its end, whichever that is; all views use it, each with its own failure."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

from sanic import Request

from config.log import facts
from mover.library.errors import ApiError
from mover.library.library import Library
from mover.library.records import ImageRecord, Location
from mover.library.registry.errors import RegistryError
from mover.library.seam import CarrierError, Incoming, Kept, Received
from mover.library.states import State

if TYPE_CHECKING:
    from mover.library.registry.registry import Registry

log = logging.getLogger(__name__)

T = TypeVar("T")

_QUEUED = frozenset({State.QUEUED})
_SAVING = frozenset({State.SAVING})
# How long an upload may wait for a registry that is away to note its end; rounds do it after that.
SETTLE_S = 30.0
AGAIN_S = 0.5


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
    token = secrets.token_hex(16)
    for attempt in (1, 2):
        try:
            claimed = await library.ask(
                lambda registry: registry.begin_upload(image.id, from_states, library.holder, to_state, token)
            )
        except BaseException:
            # It may have been made all the same.
            library.settle_later(image.id, token, State.QUEUED, frozenset({to_state}))
            raise
        if claimed is not None:
            return claimed
        # Perhaps it is held by a front end that has just died; nobody has looked since.
        if attempt == 2 or not await library.release_dead():
            break
    raise ApiError(409, f"Image {image.id} is not queued: it is being uploaded, has its data already, or is gone")


async def publish(library: Library, image: ImageRecord, received: Received, gone_status: int) -> ImageRecord:
    """The image is ACTIVE with its bytes, or the bytes go; which of the two only the registry knows.

    While it does not say, nothing is removed: what it was told last may have been done. The bytes are a sweep's then.
    """
    try:
        active = await _activated(library, image, received)
    except BaseException:
        library.settle_later(image.id, image.upload or "", State.QUEUED)
        raise
    if active is None:
        await _discard(library, image, received.location)
        now = await library.ask(lambda registry: registry.get(image.id))
        if now is None or now.deleted_at_us is not None:
            raise ApiError(gone_status, f"Image {image.id} was deleted while its data was uploaded")
        raise ApiError(
            409, f"Image {image.id} was given up while its data was uploaded, for this host was cut off: again"
        )
    await _confirm(library, image, received.location)
    log.info("library image active", extra=facts(image=image.id, length=received.size_bytes))
    return active


async def _activated(library: Library, image: ImageRecord, received: Received) -> ImageRecord | None:
    """The image as it is ACTIVE; None if the upload has lost it. A database that is away is waited for."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        try:
            return await library.ask(lambda registry: _activate(registry, image, received))
        except RegistryError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(AGAIN_S)


def _activate(registry: Registry, image: ImageRecord, received: Received) -> ImageRecord | None:
    active = registry.move(
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
    if active is not None:
        return active
    # Perhaps it was moved before, and only the answer was lost on the way.
    now = registry.get(image.id)
    location = received.location
    done = now is not None and any((one.uri, one.volume) == (location.uri, location.volume) for one in now.locations)
    return now if done and now is not None and now.deleted_at_us is None else None


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
        library.settle_later(image.id, image.upload or "", state, from_states)
        log.error("a failed upload could not be noted yet", extra=facts(image=image.id, reason=repr(error)))


async def _discard(library: Library, image: ImageRecord, location: Location) -> None:
    """Bytes that no image has: the store's sweep finds them if this fails."""
    try:
        # In a directory that hosts share, the next upload's bytes have the same name.
        if not await library.ask(lambda registry: registry.wanted(image.id, location, image.upload or "")):
            await library.carrier.remove(location)
    except (CarrierError, RegistryError) as error:
        log.error("bytes of no image could not be removed", extra=facts(uri=location.uri, reason=str(error)))


async def finish(work: Awaitable[T]) -> T:
    """Await work that must not end in the middle when the client leaves and its task is cancelled."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=SETTLE_S)
        raise
