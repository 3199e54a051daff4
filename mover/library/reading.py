"""An image's bytes to a client, from the first copy that can be read."""

from __future__ import annotations

import logging

from config.log import facts
from mover.front.sanic_seam import Headers, Sent
from mover.library.call import Call
from mover.library.records import ImageRecord
from mover.library.seam import Elsewhere, NotThere, Span, StoreGone, UnknownStore

log = logging.getLogger(__name__)


async def send(call: Call, image: ImageRecord, span: Span, status: int, headers: Headers) -> Sent:
    """Answer with `span` of an image that has data. Raises what the last copy says, BodyBroken after the first byte."""
    *others, last = image.copies
    size = image.size_bytes or 0
    for location in others:
        try:
            return await call.library.carrier.send(call.request, location, size, span, status, headers)
        except (Elsewhere, StoreGone, NotThere, UnknownStore) as error:  # nothing was sent
            log.warning("a copy cannot be read", extra=facts(store=location.store, reason=error.message))
    return await call.library.carrier.send(call.request, last, size, span, status, headers)
