"""Values that clients give, checked: what both APIs have in common."""

from __future__ import annotations

import re
from typing import Any

from mover.library.errors import ApiError

# Characters of a name, a tenant, a tag, a property's name: Glance's columns.
TEXT = 255
# Characters of a property's value: larger ones belong into the image.
VALUE = 65535
# What the registry's columns hold.
INT32 = 2**31 - 1
INT64 = 2**63 - 1
# Images of one page at most: Glance's api_limit_max.
PAGE_MOST = 1000

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


def is_uuid(text: str) -> bool:
    """Whether this can be an image's id."""
    return _UUID.fullmatch(text) is not None


def is_number(text: str, most: int) -> bool:
    """Whether this is a whole number from 0 to `most`, in digits and nothing else."""
    return text.isascii() and text.isdigit() and len(text) <= len(str(INT64)) and int(text) <= most


def page_limit(text: str | None, page: int) -> int:
    """How many images of a list are asked for: `page` if that is not said. Raises ApiError 400."""
    if text is None:
        return page
    if not is_number(text, INT64):
        raise ApiError(400, f"limit must be a whole number from 0, not {text[:80]!r}")
    return min(int(text), PAGE_MOST)


def check_text(name: str, value: Any, most: int) -> str:
    """Text without what no database keeps. Raises ApiError 400."""
    if not isinstance(value, str):
        raise ApiError(400, f"Invalid value {str(value)[:80]!r} of '{name[:80]}': it must be a string")
    if len(value) > most:
        raise ApiError(400, f"Invalid value of '{name[:80]}': {len(value)} characters, the limit is {most}")
    if "\0" in value or not _encodable(value):
        raise ApiError(400, f"Invalid value of '{name[:80]}': it holds NUL, or half a surrogate pair")
    return value


def check_property(name: str, value: Any) -> str:
    """The value of a property. Raises ApiError 400."""
    if not name or len(name) > TEXT:
        raise ApiError(400, f"Property name {name[:80]!r} must have from 1 to {TEXT} characters")
    check_text("property name", name, TEXT)
    return check_text(name, value, VALUE)


def check_properties_count(count: int, limit: int) -> None:
    """Raise ApiError 413 for too many properties."""
    if count > limit:
        raise ApiError(413, f"The limit has been exceeded on the number of allowed image properties: {limit}")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
