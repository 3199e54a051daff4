"""Deleting: the registry first, then the bytes; and the rounds that remove what a crash, or a delay, has left."""

from __future__ import annotations

import logging
import time

from config.log import facts
from mover.library import bridge
from mover.library.errors import ApiError
from mover.library.library import Library
from mover.library.records import ImageRecord, Location
from mover.library.seam import CarrierError, Elsewhere
from mover.library.states import State

log = logging.getLogger(__name__)

# How often an image that changes meanwhile is looked at again.
ATTEMPTS = 5


async def delete(library: Library, image: ImageRecord) -> ImageRecord:
    """Delete an image that the caller may delete. Raises ApiError 403 if it is protected, 404 if it is gone."""
    delayed = library.settings.scrub_s > 0
    for _ in range(ATTEMPTS):
        gone = await library.ask(lambda registry: registry.delete(image.id, delayed=delayed))
        if gone is not None:
            break
        again = await library.ask(lambda registry: registry.get(image.id))
        if again is None or again.state is State.DELETED:
            raise ApiError(404, f"Image {image.id} not found.")
        if again.protected:
            raise protected(again)
    else:
        raise ApiError(409, f"Image {image.id} is being changed by others")
    log.info("library image deleted", extra=facts(image=image.id, state=str(gone.state)))
    if image.state is State.QUEUED:  # an upload under way ends by itself
        await library.carrier.forget(image.id)
    await bridge.end_all(library, image.id)
    if gone.state is State.DELETED:
        for location in gone.locations:
            await remove(library, gone.id, location)
    return gone


def protected(image: ImageRecord) -> ApiError:
    """What protection is for."""
    return ApiError(403, f"Image {image.id} is protected and cannot be deleted.")


async def remove(library: Library, image_id: str, location: Location) -> None:
    """Remove bytes; where that fails, the next round tries again."""
    try:
        await library.carrier.remove(location)
    except Elsewhere:
        log.info("bytes are left to the host that has them", extra=facts(image=image_id, volume=location.volume))
        return
    except CarrierError as error:
        log.warning("bytes could not be removed yet", extra=facts(image=image_id, reason=error.message))
        return
    await library.ask(lambda registry: registry.removed(image_id, location))


async def scrub(library: Library, shared: bool = True) -> int:
    """One round: remove the bytes that are due; how many locations there were.

    Without `shared` only those in directories that this host reaches and not all others do.
    """
    before_us = int((time.time() - library.settings.scrub_s) * 1e6)
    volumes = await library.carrier.volumes()
    due = await library.ask(lambda registry: registry.to_remove(before_us, volumes, shared))
    for image_id, location in due:
        await remove(library, image_id, location)
    return len(due)
