"""What both Glance APIs check of a URL that an image is copied from, and of the store that it goes to."""

from __future__ import annotations

from typing import Any

from config.url_rules import UrlRefused, parse_url, rules_of
from mover.library.call import Call
from mover.library.checks import check_text
from mover.library.errors import ApiError

# Characters of a URL, or of a disk's: it comes by a header of 8 KiB at most.
PLACE = 4096


def check_url(call: Call, value: Any) -> str:
    """A URL that a client names, and that may be read as far as its text tells. Raises ApiError 400."""
    if not isinstance(value, str) or not value:
        raise ApiError(400, "The URL to import from is required")
    text = check_text("uri", value, PLACE)
    try:
        parse_url(text, rules_of(call.library.settings))
    except UrlRefused as refused:
        raise ApiError(400, f"Nothing is imported from there: {refused.message}") from None
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
