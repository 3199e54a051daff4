"""The query of a v2 list: filters, sort, page; rules without I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from mover.library.callers import Caller
from mover.library.checks import INT64, is_number, is_uuid, page_limit
from mover.library.errors import ApiError
from mover.library.jobs.records import Job
from mover.library.queries import Comparison, Query
from mover.library.records import ImageRecord, MemberStatus, Visibility
from mover.library.statuses import state_of
from mover.library.times import from_iso
from mover.library.v2.words import RESERVED, column

SORT_KEYS = ("name", "status", "container_format", "disk_format", "size", "id", "created_at", "updated_at")
LISTED = ("id", "name", "status", "container_format", "disk_format")
TIMES = ("created_at", "updated_at")
OPERATORS = ("eq", "neq", "gt", "gte", "lt", "lte")
SECOND_US = 1_000_000
TEXTS = ("owner", "checksum", "os_hash_algo", "os_hash_value")
NUMBERS = ("min_disk", "min_ram", "size", "virtual_size")
FLAGS = ("protected", "os_hidden")
PAGING = ("limit", "marker", "sort", "sort_key", "sort_dir")

Arguments = Mapping[str, Sequence[str]]


def marker_of(arguments: Arguments) -> str | None:
    """The id that a page begins after. Raises ApiError 400."""
    marker = _last(arguments, "marker")
    if marker is not None and not is_uuid(marker):
        raise ApiError(400, f"Invalid marker {marker[:80]!r}: it must be an image's id")
    return marker


def parse(arguments: Arguments, caller: Caller, page: int, marker: ImageRecord | None) -> Query:
    """The query that a list's arguments are. Raises ApiError 400."""
    filters = _Filters(arguments)
    return Query(
        viewer=caller.viewer,
        conditions=tuple(filters.conditions),
        one_of=filters.one_of,
        properties=filters.properties,
        tags=tuple(arguments.get("tag", ())),
        visibility=_visibility(_last(arguments, "visibility")),
        member_status=_member_status(_last(arguments, "member_status")),
        sort=_sort(arguments),
        marker=marker,
        limit=page_limit(_last(arguments, "limit"), page),
    )


class _Filters:
    """Conditions on attributes; whatever is no attribute is a property."""

    def __init__(self, arguments: Arguments) -> None:
        self.conditions: list[tuple[str, Comparison, Any]] = []
        self.one_of: dict[str, tuple[Any, ...]] = {}
        self.properties: dict[str, str] = {}
        for tag in arguments.get("tag", ()):
            _check_text("tag", tag)
        for name in arguments:
            if name not in (*PAGING, "tag", "visibility", "member_status"):
                self._add(name, _last(arguments, name) or "")
        if "os_hidden" not in arguments:
            self.conditions.append(("hidden", "eq", False))

    def _add(self, name: str, text: str) -> None:
        _check_text(name, text)
        if name in LISTED:
            self._add_listed(name, text)
        elif name in TIMES:
            self.conditions += _time(name, text)
        elif name in ("size_min", "size_max"):
            self.conditions.append(("size_bytes", "gte" if name == "size_min" else "lte", _number(name, text)))
        elif name in FLAGS:
            self.conditions.append((column(name), "eq", _flag(name, text)))
        elif name in NUMBERS:
            self.conditions.append((column(name), "eq", _number(name, text)))
        elif name in TEXTS:
            self.conditions.append((column(name), "eq", text))
        elif name in RESERVED:
            raise ApiError(400, f"Cannot filter by {name!r}")
        else:
            self.properties[name] = text

    def _add_listed(self, name: str, text: str) -> None:
        texts = split_list(text[3:]) if text.startswith("in:") else [_equal(text)]
        self.one_of[column(name)] = tuple(state_of(one) if name == "status" else one for one in texts)


def _equal(text: str) -> str:
    return text.removeprefix("eq:")


def split_list(text: str) -> list[str]:
    """`a,"b,c",d`: values between commas; one with a comma stands in quotes, a quote in it after a backslash."""
    found: list[str] = []
    at = 0
    while True:
        value, at = _quoted(text, at + 1) if text[at : at + 1] == '"' else _plain(text, at)
        found.append(value)
        if at == len(text):
            return found
        if text[at] != ",":
            raise ApiError(400, f"Invalid filter value {text[:80]!r}: there is no comma after a closing quotation mark")
        at += 1


def _plain(text: str, at: int) -> tuple[str, int]:
    end = text.find(",", at)
    end = len(text) if end < 0 else end
    value = text[at:end]
    if '"' in value or not value:
        raise ApiError(400, f"Invalid filter value {text[:80]!r}: a value is empty, or holds a quotation mark")
    return value, end


def _quoted(text: str, at: int) -> tuple[str, int]:
    value: list[str] = []
    while at < len(text):
        if text[at] == "\\" and at + 1 < len(text):
            at += 1
        elif text[at] == '"':
            return "".join(value), at + 1
        value.append(text[at])
        at += 1
    raise ApiError(400, f"Invalid filter value {text[:80]!r}: the quote is not closed")


def _time(name: str, text: str) -> list[tuple[str, Comparison, Any]]:
    """A comparison with a time, in whole seconds, as v2 shows them."""
    operator, colon, rest = text.partition(":")
    if not colon or not operator.isalpha():  # a time has colons, too
        operator, rest = "eq", text
    if operator not in OPERATORS:
        raise ApiError(400, f"Invalid operator in {name}={text[:80]!r}: one of {', '.join(OPERATORS)}")
    try:
        second = from_iso(rest) // SECOND_US * SECOND_US
    except (ValueError, OverflowError):
        raise ApiError(400, f"Invalid time in {name}={text[:80]!r}: ISO 8601, as 2026-11-20T22:10:32Z") from None
    after = second + SECOND_US
    comparisons: dict[str, list[tuple[Comparison, Any]]] = {
        "eq": [("gte", second), ("lt", after)],
        "neq": [("outside", (second, after))],
        "gt": [("gte", after)],
        "gte": [("gte", second)],
        "lt": [("lt", second)],
        "lte": [("lt", after)],
    }
    return [(column(name), comparison, value) for comparison, value in comparisons[operator]]


def _number(name: str, text: str) -> int:
    if not is_number(text, INT64):
        raise ApiError(400, f"Invalid value {text[:80]!r} of '{name}': it must be a whole number from 0 to {INT64}")
    return int(text)


def _flag(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ApiError(400, f"Invalid value {text[:80]!r} of '{name}': it must be true or false")
    return text.lower() == "true"


def _visibility(text: str | None) -> Any:
    if text is None or text == "all":
        return text
    if text not in list(Visibility):
        raise ApiError(400, f"Invalid visibility value: {text[:80]!r}")
    return Visibility(text)


def _member_status(text: str | None) -> MemberStatus | None:
    if text == "all":
        return None
    if text is not None and text not in list(MemberStatus):
        raise ApiError(400, f"Invalid status: {text[:80]!r}")
    return MemberStatus(text or MemberStatus.ACCEPTED)


def _sort(arguments: Arguments) -> tuple[tuple[str, bool], ...]:
    """`sort=name:asc,size`, or `sort_key=name&sort_dir=asc&sort_key=size`."""
    keys = list(arguments.get("sort_key", ()))
    directions = list(arguments.get("sort_dir", ()))
    if combined := _last(arguments, "sort"):
        if keys or directions:
            raise ApiError(400, "Old and new sorting syntax cannot be combined")
        parts = [part.strip().partition(":") for part in combined.split(",")]
        keys, directions = [key for key, _, _ in parts], [direction or "desc" for _, _, direction in parts]
    keys = keys or ["created_at"]
    directions = directions or ["desc"]
    if len(directions) > len(keys) or (len(directions) > 1 and len(directions) != len(keys)):
        raise ApiError(400, "Number of sort dirs does not match the number of sort keys")
    directions = directions * len(keys) if len(directions) == 1 else directions
    return tuple((_sort_key(key), _goes_down(way)) for key, way in zip(keys, directions, strict=True))


def _sort_key(key: str) -> str:
    if key not in SORT_KEYS:
        raise ApiError(400, f"Invalid sort key: {key[:80]!r}. It must be one of {', '.join(SORT_KEYS)}")
    return column(key)


def _goes_down(direction: str) -> bool:
    if direction not in ("asc", "desc"):
        raise ApiError(400, f"Invalid sort direction: {direction[:80]!r}")
    return direction == "desc"


def _check_text(name: str, text: str) -> None:
    if "\0" in text or "\0" in name:
        raise ApiError(400, "A filter holds NUL")


def _last(arguments: Arguments, name: str) -> str | None:
    given = arguments.get(name)
    return given[-1] if given else None


def links(path: str, arguments: Arguments, shown: Sequence[ImageRecord | Job], limit: int) -> dict[str, str]:
    """`first`, and `next` after a page that is full."""
    rest = [(name, one) for name, given in arguments.items() if name != "marker" for one in given]
    found = {"first": _link(path, rest)}
    if shown and len(shown) == limit:
        found["next"] = _link(path, [*rest, ("marker", shown[-1].id)])
    return found


def _link(path: str, arguments: Sequence[tuple[str, str]]) -> str:
    return f"{path}?{urlencode(arguments, quote_via=quote)}" if arguments else path
