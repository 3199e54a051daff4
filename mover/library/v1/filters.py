"""The query of a v1 list; rules without I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mover.library.callers import Caller
from mover.library.checks import INT64, is_number, is_uuid, page_limit
from mover.library.errors import ApiError
from mover.library.queries import Comparison, Query, Viewer
from mover.library.records import ImageRecord
from mover.library.statuses import state_of
from mover.library.times import from_iso

SORT_KEYS = {
    "name": "name",
    "status": "state",
    "container_format": "container_format",
    "disk_format": "disk_format",
    "size": "size_bytes",
    "id": "id",
    "created_at": "created_at_us",
    "updated_at": "updated_at_us",
}
NUMBERS: dict[str, tuple[str, Comparison]] = {
    "min_ram": ("min_ram_mb", "eq"),
    "min_disk": ("min_disk_gb", "eq"),
    "size_min": ("size_or_0", "gte"),
    "size_max": ("size_or_0", "lte"),
}
TRUE, FALSE = ("true", "1"), ("false", "0")
PROPERTY = "property-"

Arguments = Mapping[str, Sequence[str]]


def marker_of(arguments: Arguments) -> str | None:
    """The id that a page begins after. Raises ApiError 400."""
    marker = _last(arguments, "marker")
    if marker is not None and not is_uuid(marker):
        raise ApiError(400, "Invalid marker format")
    return marker


def parse(arguments: Arguments, caller: Caller, page: int, marker: ImageRecord | None) -> Query:
    """The query that a list's arguments are; those that v1 does not know are ignored. Raises ApiError 400."""
    since = _since(arguments)
    deleted = _deleted(arguments, caller, since is not None)
    conditions = _conditions(arguments)
    if since is not None:
        conditions.append(("updated_at_us", "gt", since))
    query = Query(
        viewer=caller.viewer,
        conditions=tuple(conditions),
        properties={
            _checked(name.removeprefix(PROPERTY).lower().replace("-", "_")): _checked(given[-1])
            for name, given in arguments.items()
            if name.startswith(PROPERTY)
        },
        deleted=deleted,
        hides_failed=deleted is None and "status" not in arguments,
        sort=_sort(arguments),
        marker=marker,
        limit=page_limit(_last(arguments, "limit"), page),
    )
    return _with_publicity(query, arguments, caller)


def _with_publicity(query: Query, arguments: Arguments, caller: Caller) -> Query:
    """`is_public`, which is an admin's: True, the default, means to look as everybody else does."""
    if not caller.is_admin:
        return query
    text = (_last(arguments, "is_public") or "true").lower()
    if text in TRUE:
        return msgspec.structs.replace(query, viewer=Viewer(caller.tenant, is_admin=False))
    if text in FALSE:
        return msgspec.structs.replace(query, not_public=True, visibility="all")
    if text == "none":
        return msgspec.structs.replace(query, visibility="all")
    raise ApiError(400, "is_public must be None, True, or False")


def _conditions(arguments: Arguments) -> list[tuple[str, Comparison, Any]]:
    found: list[tuple[str, Comparison, Any]] = []
    for name in ("name", "container_format", "disk_format"):
        if (text := _last(arguments, name)) is not None:
            found.append((name, "eq", _checked(text)))
    if (text := _last(arguments, "status")) is not None:
        found.append(("state", "eq", state_of(_checked(text))))
    for name, (column, comparison) in NUMBERS.items():
        if (text := _last(arguments, name)) is not None:
            found.append((column, comparison, _number(name, text)))
    if (text := _last(arguments, "protected")) is not None:
        if text.lower() not in (*TRUE, *FALSE):
            raise ApiError(400, "protected must be True, or False")
        found.append(("protected", "eq", text.lower() in TRUE))
    return found


def _deleted(arguments: Arguments, caller: Caller, changes: bool) -> bool | None:
    """Which of the deleted are listed, as Query.deleted says it."""
    text = _last(arguments, "deleted")
    if text is not None and caller.is_admin:
        if text.lower() == "none":
            return False
        return True if text.lower() in TRUE else None
    return False if changes else None


def _since(arguments: Arguments) -> int | None:
    text = _last(arguments, "changes-since")
    if text is None:
        return None
    try:
        return from_iso(text)
    except (ValueError, OverflowError):
        raise ApiError(400, f"Unrecognized changes-since value {text[:80]!r}") from None


def _number(name: str, text: str) -> int:
    if not is_number(text, INT64):
        raise ApiError(400, f"Bad value passed to filter {name}: {text[:80]!r} is no whole number from 0")
    return int(text)


def _sort(arguments: Arguments) -> tuple[tuple[str, bool], ...]:
    key = _last(arguments, "sort_key") or "created_at"
    direction = _last(arguments, "sort_dir") or "desc"
    if key not in SORT_KEYS:
        raise ApiError(400, f"Unsupported sort_key. Acceptable values: {', '.join(SORT_KEYS)}")
    if direction not in ("asc", "desc"):
        raise ApiError(400, "Unsupported sort_dir. Acceptable values: asc, desc")
    return ((SORT_KEYS[key], direction == "desc"),)


def _checked(text: str) -> str:
    if "\0" in text:
        raise ApiError(400, "A filter holds NUL")
    return text


def _last(arguments: Arguments, name: str) -> str | None:
    given = arguments.get(name)
    return given[-1] if given else None
