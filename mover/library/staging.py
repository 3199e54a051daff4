"""Data that wait for their import, and copies that are given up."""

from __future__ import annotations

from sanic import Request

from mover.library import deletes, uploads
from mover.library.errors import ApiError
from mover.library.library import Library
from mover.library.records import ImageRecord, Location
from mover.library.seam import Incoming
from mover.library.states import State

_STAGED = frozenset({State.UPLOADING})
# Data that were staged may be staged anew: they may have been kept too long.
_FROM = frozenset({State.QUEUED, State.UPLOADING})


async def stage(library: Library, request: Request, image: ImageRecord, length: int | None) -> int:
    """Take the body as the image's staged data; how many bytes. The image is UPLOADING then, and held by nobody.

    Raises ApiError 409 if it is neither queued nor staged, or somebody is at it, CarrierError, ClientGone.
    """
    claimed = await uploads.claim(library, image, _FROM, State.UPLOADING)
    try:
        count = await library.carrier.stage(request, Incoming(claimed, length=length, size_bytes=length))
    except BaseException:
        await uploads.finish(uploads.leave(library, claimed, State.QUEUED, _STAGED))
        raise
    held = claimed.upload
    staged = await uploads.finish(
        library.ask(lambda registry: registry.move(image.id, _STAGED, State.UPLOADING, held_by=held))
    )
    if staged is None:
        await library.carrier.forget(image.id)
        raise ApiError(410, f"Image {image.id} was deleted while its data was staged")
    return count


async def remove_copy(library: Library, image: ImageRecord, location: Location) -> None:
    """Take a copy from the image, then its bytes. Raises ApiError 409 if the image changes meanwhile."""
    if await library.ask(lambda registry: registry.drop_copy(image.id, location)) is None:
        raise ApiError(409, f"Image {image.id} is being changed by others")
    await deletes.remove(library, image.id, location)
