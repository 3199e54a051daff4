"""What a v1 client says of an image in headers, checked; rules without I/O.

glanceclient has percent-encoded values since 2018, and genuine servers keep them so; here they are decoded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from mover.library.checks import INT32, INT64, TEXT, check_property, check_text, is_number, is_uuid
from mover.library.errors import ApiError
from mover.library.times import from_iso

PREFIX = "x-image-meta-"
PROPERTY = "property-"
COPY_FROM = "x-glance-api-copy-from"
PURGE = "x-glance-registry-purge-props"

FIELDS = frozenset(
    {
        *("id", "name", "owner", "status", "size", "checksum", "disk_format", "container_format"),
        *("is_public", "protected", "deleted", "min_ram", "min_disk", "virtual_size"),
        *("created_at", "updated_at", "deleted_at", "location", "copy_from", "uri", "store"),
    }
)
MD5 = 32
_PRINTABLE = re.compile(r"[!-~]+")
YES = frozenset({"true", "1", "yes", "on", "t", "y"})


class Meta(msgspec.Struct, frozen=True):
    """The metadata of one request: columns of the registry in `facts`, and what is a question rather than a value.

    `sources` name where the data is said to be, if that is not the body: `location` is the URL where it stays,
    `copy_from` the one that it is copied from.
    """

    facts: dict[str, Any]
    properties: dict[str, str | None]
    is_public: bool | None = None
    id: str | None = None
    size_bytes: int | None = None
    md5: str | None = None
    status: str | None = None
    store: str | None = None
    location: str | None = None
    sources: tuple[str, ...] = ()
    copy_from: str | None = None


def parse(headers: Iterable[tuple[str, str]]) -> Meta:
    """The metadata of a request's headers. Raises ApiError 400."""
    fields: dict[str, str | None] = {}
    properties: dict[str, str | None] = {}
    for raw_name, raw_value in headers:
        name = raw_name.lower()
        if name.startswith(PREFIX):
            key = name.removeprefix(PREFIX).replace("-", "_")
            value = url_of(raw_value) if key in ("location", "copy_from") else _value(raw_value)
            _add(key, value, raw_name, fields, properties)
    sources = [key for key in ("location", "copy_from") if fields.get(key)]
    copy_from = fields.get("copy_from")
    for name, value in headers:
        if name.lower() == COPY_FROM and value:
            copy_from = url_of(value)
            sources.append("copy_from")
    return Meta(
        facts=_facts(fields),
        properties=properties,
        is_public=None if fields.get("is_public") is None else to_bool(fields["is_public"] or ""),
        id=_id(fields.get("id")),
        size_bytes=_number(fields, "size", INT64),
        md5=_md5(fields.get("checksum")),
        status=fields.get("status"),
        store=fields.get("store"),
        location=fields.get("location"),
        sources=tuple(dict.fromkeys(sources)),
        copy_from=copy_from,
    )


def to_bool(text: str) -> bool:
    """Glance's idea of a yes; everything else is a no."""
    return text.strip().lower() in YES


def _add(
    key: str, value: str | None, raw_name: str, fields: dict[str, str | None], properties: dict[str, str | None]
) -> None:
    if key.startswith("property_"):
        name = unquote(key.removeprefix("property_"), errors="replace").lower()
        properties[name] = None if value is None else check_property(name, value)
        check_property(name, "")
    elif key in FIELDS:
        fields[key] = value
    else:
        raise ApiError(400, f"Bad header: {raw_name[:80]}")


def _value(raw: str) -> str | None:
    """A header's value, percent-encoded or not; nothing is null. What was not UTF-8 came as lone surrogates."""
    try:
        raw.encode()
        text = unquote(raw, errors="strict").strip()
    except UnicodeError:
        raise ApiError(400, f"A header's value is not UTF-8: {raw[:80]!a}") from None
    return text or None


def url_of(raw: str) -> str | None:
    """A header's value that is a URL, which has percent signs of its own: it is decoded only if glanceclient made it.

    glanceclient encodes all but "/" and ":", and no URL has what is not printable.
    """
    text = _value(raw)
    if text is None or quote(text, safe="/:") != raw.strip() or not _PRINTABLE.fullmatch(text):
        return raw.strip() or None
    return text


def _facts(fields: dict[str, str | None]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for key in ("name", "owner"):
        if key in fields:
            value = fields[key]
            facts[key] = None if value is None else check_text(f"Image {key}", value, TEXT)
    for key in ("disk_format", "container_format"):
        if key in fields:
            facts[key] = fields[key]
    for key, column in (("min_disk", "min_disk_gb"), ("min_ram", "min_ram_mb")):
        if key in fields:
            facts[column] = _number(fields, key, INT32) or 0
    if "protected" in fields:
        facts["protected"] = to_bool(fields["protected"] or "")
    for key in ("created_at", "updated_at", "deleted_at"):
        _check_time(key, fields.get(key))
    return facts


def _number(fields: dict[str, str | None], key: str, most: int) -> int | None:
    text = fields.get(key)
    if text is None:
        return None
    if not is_number(text, most):
        raise ApiError(400, f"Cannot convert image {key} '{text[:80]}' to an integer from 0 to {most}.")
    return int(text)


def _md5(text: str | None) -> str | None:
    if text is not None and len(text) > MD5:
        raise ApiError(400, f"Image checksum '{text[:80]}' has more than {MD5} characters")
    return None if text is None else text.lower()


def _id(text: str | None) -> str | None:
    if text is not None and not is_uuid(text):
        raise ApiError(400, f"Invalid image id format: {text[:80]!r}")
    return None if text is None else text.lower()


def _check_time(key: str, text: str | None) -> None:
    """Times are the registry's own; but junk is refused, as it always was."""
    if text is None:
        return
    try:
        from_iso(text)
    except (ValueError, OverflowError):
        raise ApiError(400, f"Image {key} {text[:80]!r} is no ISO 8601 time") from None
