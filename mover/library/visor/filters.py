"""The query of a VISOR list; rules without I/O.

What the registry can look for is asked of it, page by page; `matches` looks at the rest of what an image is shown as.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mover.library.callers import Caller
from mover.library.checks import INT64, PAGE_MOST, is_number
from mover.library.errors import ApiError
from mover.library.queries import SORT_PROPERTY, Comparison, Query
from mover.library.visor import words
from mover.library.visor.meta import NO_FORMAT
from mover.library.visor.words import KNOWN, PROPERTIES, Shown

RENDERINGS = ("json", "xml")
COLUMNS = {
    "_id": "id",
    "uri": "id",
    "name": "name",
    "owner": "owner",
    "access": "visibility",
    "status": "state",
    "format": "disk_format",
    "size": "size_bytes",
    "checksum": "md5",
    "created_at": "created_at_us",
    "updated_at": "updated_at_us",
}
EQUAL = ("_id", "name", "owner", "checksum")

Arguments = Mapping[str, Sequence[str]]


class Listing(msgspec.Struct, frozen=True):
    """What a list asks for: of the registry, and of what is shown."""

    query: Query
    shown: dict[str, str]

    def matches(self, shown: Shown) -> bool:
        """Whether an image that the registry has found is one of the list."""
        return all(str(shown.get(name, "")) == text for name, text in self.shown.items())


def parse(arguments: Arguments, caller: Caller) -> Listing:
    """The list that the arguments ask for. Raises ApiError 400."""
    conditions: list[tuple[str, Comparison, Any]] = [("hidden", "eq", False)]
    one_of: dict[str, tuple[Any, ...]] = {}
    properties: dict[str, str] = {}
    shown: dict[str, str] = {}
    for name, text in _filters(arguments).items():
        if "\0" in name or "\0" in text:
            raise ApiError(400, "A filter holds NUL")
        if name in EQUAL:
            conditions.append((COLUMNS[name], "eq", text.lower() if name in ("_id", "checksum") else text))
        elif name == "size":
            conditions.append(("size_bytes", "eq", _size(text)))
        elif name == "format":
            conditions.append(("disk_format", "eq", None if text == NO_FORMAT else text))
        elif name == "status":
            one_of["state"] = words.states(text)
        elif name == "access":
            one_of["visibility"] = words.visibilities(text)
        elif name == "architecture" or name not in KNOWN:
            properties[name] = text
        else:
            shown[name] = text
    query = Query(
        viewer=caller.viewer,
        conditions=tuple(conditions),
        one_of=one_of,
        properties=properties,
        sort=_sort(arguments),
        limit=PAGE_MOST,
    )
    return Listing(query, shown)


def rendering(arguments: Arguments) -> str | None:
    """`format=xml` and `format=json` ask for a form of the answer; any other format is a filter."""
    return next((text for text in reversed(arguments.get("format", ())) if text in RENDERINGS), None)


def _filters(arguments: Arguments) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, given in arguments.items():
        texts = [text for text in given if text not in RENDERINGS] if name == "format" else given
        if texts and name not in ("sort", "dir"):
            found[name] = texts[-1]
    return found


def _sort(arguments: Arguments) -> tuple[tuple[str, bool], ...]:
    key = arguments.get("sort", ("_id",))[-1] or "_id"
    direction = (arguments.get("dir", ("asc",))[-1] or "asc").lower()
    if direction not in ("asc", "desc"):
        raise ApiError(400, f"Invalid dir {direction[:80]!r}: it must be asc or desc")
    if key in ("store", "location", "accessed_at", "access_count") or "\0" in key:
        raise ApiError(400, f"Invalid sort {key[:80]!a}: images cannot be sorted by it")
    return ((COLUMNS.get(key) or SORT_PROPERTY + PROPERTIES.get(key, key), direction == "desc"),)


def _size(text: str) -> int:
    if not is_number(text, INT64):
        raise ApiError(400, f"Invalid size {text[:80]!r}: it must be a whole number from 0 to {INT64}")
    return int(text)
