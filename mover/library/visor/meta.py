"""What a VISOR client says of an image in headers, checked; rules without I/O."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from mover.library.checks import INT64, TEXT, check_property, check_text, is_number
from mover.library.errors import ApiError
from mover.library.formats import DISK_FORMATS, check_formats
from mover.library.records import Visibility
from mover.library.visor.words import (
    ACCESSES,
    ARCHITECTURES,
    KNOWN,
    PREFIX,
    PROPERTIES,
    READ_ONLY,
    STATUSES,
    TYPES,
)

MD5 = re.compile(r"[0-9a-f]{32}", re.ASCII)
NO_FORMAT = "none"
# Glance's names of attributes that are looked at before they are taken.
GLANCES = {"kernel_id": "kernel", "ramdisk_id": "ramdisk"}
MANDATORY = ("name", "architecture")
AMAZON = ("ami", "aki", "ari")
_CHOICES = {"architecture": ARCHITECTURES, "access": ACCESSES, "type": TYPES, "status": STATUSES}


class Meta(msgspec.Struct, frozen=True):
    """The metadata of one request. `facts` are columns, `properties` None where one is to go; `given` is whether there
    was any; `size_bytes` and `md5` are what the data must have.
    """

    given: bool
    facts: dict[str, Any]
    properties: dict[str, str | None]
    visibility: Visibility | None = None
    size_bytes: int | None = None
    md5: str | None = None
    status: str | None = None
    store: str | None = None
    location: str | None = None
    kernel: str | None = None
    ramdisk: str | None = None


def parse(headers: Mapping[str, str], has_body: bool) -> Meta:
    """The metadata of a request's headers, whose names are in lower case. Raises ApiError 400."""
    fields = {
        name.removeprefix(PREFIX).replace("-", "_"): _text(name, value)
        for name, value in headers.items()
        if name.startswith(PREFIX)
    }
    for name in READ_ONLY:
        if name in fields:
            raise ApiError(400, f"{name} is read-only: leave it out")
    if fields.get("location") and has_body:
        raise ApiError(400, "An image has its data at a location or in the request's body: send one of them")
    for name, choices in _CHOICES.items():
        _check_choice(name, fields.get(name), choices)
    return Meta(
        given=bool(fields),
        facts=_facts(fields),
        properties=_properties(fields),
        visibility=_visibility(fields.get("access")),
        size_bytes=_size(fields.get("size")),
        md5=_md5(fields.get("checksum")) or (content_md5(headers.get("content-md5")) if has_body else None),
        status=fields.get("status") or None,
        store=fields.get("store") or None,
        location=fields.get("location") or None,
        kernel=_image_id("kernel", fields.get("kernel")),
        ramdisk=_image_id("ramdisk", fields.get("ramdisk")),
    )


def check_new(meta: Meta) -> None:
    """Raise ApiError 400 unless all is there that an image must have."""
    given = {"name": meta.facts.get("name"), "architecture": meta.properties.get("architecture")}
    missing = [name for name in MANDATORY if not given[name]]
    if missing:
        raise ApiError(400, f"The image needs a {' and an '.join(missing)}: send x-image-meta-{missing[0]}")


def formats(image_format: str | None, has_data: bool) -> dict[str, str | None]:
    """The columns that a format is. Data of none is raw: so it is known what nobody may take it for."""
    if image_format is None and not has_data:
        return {"disk_format": None, "container_format": None}
    disk = image_format or "raw"
    disk_format, container = check_formats(disk, disk if disk in AMAZON else "bare")
    return {"disk_format": disk_format, "container_format": container}


def content_md5(text: str | None) -> str | None:
    """The md5 that Content-MD5 says (RFC 1864: in base 64), which is signed with the request. Raises ApiError 400."""
    if not text:
        return None
    try:
        digest = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != 16:
        raise ApiError(400, f"Content-MD5 {text[:80]!a} is no md5 in base 64")
    return digest.hex()


def _facts(fields: Mapping[str, str]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if "name" in fields:
        if not fields["name"]:
            raise ApiError(400, "The image needs a name: x-image-meta-name is empty")
        facts["name"] = check_text("name", fields["name"], TEXT)
    if fields.get("owner"):
        facts["owner"] = check_text("owner", fields["owner"], TEXT)
    if "format" in fields:
        wanted = fields["format"] or NO_FORMAT
        _check_choice("format", wanted, (*DISK_FORMATS, NO_FORMAT))
        facts["disk_format"] = None if wanted == NO_FORMAT else wanted
    return facts


def _properties(fields: Mapping[str, str]) -> dict[str, str | None]:
    """Custom attributes, and those of VISOR's that are properties. Nothing takes one away."""
    found: dict[str, str | None] = {}
    for name in ("architecture", "type"):
        if name in fields:
            found[PROPERTIES[name]] = fields[name] or None
    for name, value in fields.items():
        if name in GLANCES:
            raise ApiError(400, f"{name} is set by {GLANCES[name]}: send x-image-meta-{GLANCES[name]}")
        if name not in KNOWN:
            found[name] = check_property(name, value) or None
    if "architecture" in found and found["architecture"] is None:
        raise ApiError(400, "The image needs an architecture: x-image-meta-architecture is empty")
    return found


def _check_choice(name: str, value: str | None, choices: Iterable[str]) -> None:
    if value and value not in choices:
        raise ApiError(400, f"Invalid value {value[:80]!r} of {name}: it must be one of {', '.join(choices)}")


def _visibility(access: str | None) -> Visibility | None:
    return None if not access else Visibility.PUBLIC if access == "public" else Visibility.PRIVATE


def _size(text: str | None) -> int | None:
    if not text:
        return None
    if not is_number(text, INT64):
        raise ApiError(400, f"Invalid value {text[:80]!r} of size: it must be a whole number from 0 to {INT64}")
    return int(text)


def _md5(text: str | None) -> str | None:
    if not text:
        return None
    if MD5.fullmatch(text.lower()) is None:
        raise ApiError(400, f"Invalid value {text[:80]!r} of checksum: it must be an md5 in 32 hexadecimal digits")
    return text.lower()


def _image_id(name: str, text: str | None) -> str | None:
    """The id of an image that is named by it, or by its URI; empty takes it away."""
    return text if not text else check_text(name, text.rpartition("/")[2], TEXT).lower()


def _text(name: str, raw: str) -> str:
    """A header's value; what was not UTF-8 came as lone surrogates."""
    try:
        raw.encode()
    except UnicodeError:
        raise ApiError(400, f"The value of {name[:80]} is not UTF-8: {raw[:80]!a}") from None
    return raw.strip()
