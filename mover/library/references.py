"""Images whose data stay at a URL: looked at when they are made, never copied, never removed, checked at each read.

look ──► the URL may be read, there is something, of the size that was said      nothing is made before that
 └──► SAVING ──► ACTIVE, with the location                                       of two who do it one wins
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from config.log import facts
from mover.library.errors import ApiError
from mover.library.library import Library
from mover.library.records import ImageRecord
from mover.library.seam import Referred
from mover.library.states import State

if TYPE_CHECKING:
    from mover.library.registry.registry import Registry

log = logging.getLogger(__name__)

_SAVING = frozenset({State.SAVING})


async def look(library: Library, url: str | None, size_bytes: int | None, store: str | None) -> Referred | None:
    """What the URL names, which has `size_bytes` if anybody has said so; None without one.

    Raises ApiError 409, CarrierError.
    """
    if url is None:
        return None
    found = await library.carrier.refer(url, store)
    if size_bytes is not None and size_bytes != found.size_bytes:
        message = f"The data at the location has {found.size_bytes} bytes, {size_bytes} were announced"
        raise ApiError(409, message)
    return found


async def take(
    library: Library, image: ImageRecord, referred: Referred, from_states: frozenset[State], gone_status: int
) -> ImageRecord:
    """Have it as the image's data. No checksum is known of it, for nobody has read it.

    Raises ApiError: 409 if the image is in none of `from_states`, `gone_status` if it was deleted meanwhile.
    """
    active = await library.ask(lambda registry: _activate(registry, library, image, referred, from_states))
    if active is None:
        raise ApiError(gone_status, f"Image {image.id} was deleted meanwhile")
    log.info(
        "library image active", extra=facts(image=image.id, length=referred.size_bytes, store=referred.location.store)
    )
    return active


def _activate(
    registry: Registry, library: Library, image: ImageRecord, referred: Referred, from_states: frozenset[State]
) -> ImageRecord | None:
    claimed = registry.begin_upload(image.id, from_states, library.holder)
    if claimed is None:
        raise ApiError(409, f"Image {image.id} is not queued: it is being uploaded, has its data already, or is gone")
    return registry.move(
        image.id,
        _SAVING,
        State.ACTIVE,
        held_by=claimed.upload,
        location=referred.location,
        size_bytes=referred.size_bytes,
        virtual_size_bytes=None,
        md5=None,
        hash_algo=None,
        hash_value=None,
    )
