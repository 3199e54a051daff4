"""What both Glance APIs check of a URL that an image is copied from, and of the store that it goes to."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from mover.library.call import Call
from mover.library.checks import check_text
from mover.library.errors import ApiError

# Characters of a URL, or of a disk's: it comes by a header of 8 KiB at most.
PLACE = 4096


def check_url(value: Any) -> str:
    """A URL that a client names. Raises ApiError 400."""
    if not isinstance(value, str) or not value:
        raise ApiError(400, "The URL to import from is required")
    text = check_text("uri", value, PLACE)
    try:
        parts = urlsplit(text)
        host = parts.hostname if parts.scheme in ("http", "https") else None
    except ValueError:
        raise ApiError(400, f"{text[:80]!r} is no URL") from None
    if not host:
        raise ApiError(400, f"Images are imported from http:// and https:// only, not from {parts.scheme[:20]!r}")
    if parts.username is not None or parts.password is not None:
        raise ApiError(400, "A URL with a user or a password is not taken: both would be kept")
    return text


async def store_of(call: Call, wanted: str | None) -> str:
    """The store that an image goes to: the default one if none is named. Raises ApiError 400 and 410."""
    found = [store.id for store in await call.library.carrier.stores() if not store.read_only]
    if wanted is None and found:
        return found[0]
    if wanted is None:
        raise ApiError(410, "No store takes new images")
    if wanted not in found:
        raise ApiError(400, f"There is no store '{wanted[:80]}' that takes images")
    return wanted
