"""VISOR's words for what the registry knows.

What has no value is left out, as VISOR's first database does it. The location is never shown.
"""

from __future__ import annotations

from mover.library.checks import INT64
from mover.library.header_text import safe
from mover.library.records import ImageRecord, Location, Visibility
from mover.library.states import State
from mover.library.times import to_v2

Headers = list[tuple[str, str]]
Shown = dict[str, object]

PREFIX = "x-image-meta-"
READ_ONLY = ("_id", "uri", "created_at", "updated_at", "accessed_at", "access_count")
KNOWN = frozenset(
    {
        *READ_ONLY,
        *("name", "architecture", "owner", "status", "size", "checksum", "access", "type", "format", "uploaded_at"),
        *("store", "location", "kernel", "ramdisk"),
    }
)
BRIEF = ("_id", "uri", "name", "architecture", "type", "format", "store", "size", "created_at")

ARCHITECTURES = ("i386", "x86_64")
ACCESSES = ("public", "private")
TYPES = ("kernel", "ramdisk", "machine")
STATUSES = ("locked", "uploading", "error", "available")

# Attributes that are properties in the other views, by the names that Glance has for them.
PROPERTIES = {
    "architecture": "architecture",
    "type": "type",
    "kernel": "kernel_id",
    "ramdisk": "ramdisk_id",
    "store": "store",
    "uploaded_at": "uploaded_at",
}
# Amazon's formats say what an image is for.
TYPE_OF = {"aki": "kernel", "ari": "ramdisk"}

# A deactivated image has its data and nobody gets it: of VISOR's words, that is locked.
_STATUS = {
    State.QUEUED: "locked",
    State.SAVING: "uploading",
    State.UPLOADING: "uploading",
    State.IMPORTING: "uploading",
    State.ACTIVE: "available",
    State.FAILED: "error",
    State.DEACTIVATED: "locked",
    State.PENDING_DELETE: "locked",
    State.DELETED: "locked",
}
_PUBLIC = (Visibility.PUBLIC, Visibility.COMMUNITY)


def status(state: State) -> str:
    """VISOR's word for a state."""
    return _STATUS[state]


def states(word: str) -> tuple[str, ...]:
    """The states that a status may be; none of what is no status."""
    return tuple(str(state) for state, one in _STATUS.items() if one == word)


def visibilities(word: str) -> tuple[str, ...]:
    """The visibilities that an access may be; none of what is no access."""
    return tuple(str(one) for one in Visibility if access(one) == word)


def access(visibility: Visibility) -> str:
    """Public is what everybody may read who knows the id."""
    return "public" if visibility in _PUBLIC else "private"


def detail(image: ImageRecord, base: str) -> Shown:
    """All of an image that VISOR shows; `base` is the URL of the view."""
    properties = image.properties
    location = image.location
    shown: Shown = {
        "_id": image.id,
        "uri": f"{base}/images/{image.id}",
        "name": image.name,
        "architecture": properties.get("architecture"),
        "access": access(image.visibility),
        "status": status(image.state),
        "owner": image.owner,
        "type": properties.get("type") or TYPE_OF.get(image.disk_format or ""),
        "format": image.disk_format,
        "size": image.size_bytes,
        "checksum": image.md5 or _etag(location),
        "store": location.store if location is not None else properties.get("store"),
        "kernel": properties.get("kernel_id"),
        "ramdisk": properties.get("ramdisk_id"),
        "created_at": to_v2(image.created_at_us),
        "updated_at": to_v2(image.updated_at_us),
        "uploaded_at": properties.get("uploaded_at"),
    }
    named = {*KNOWN, *PROPERTIES.values()}
    shown |= {name: _value(text) for name, text in properties.items() if text is not None and name not in named}
    return {name: value for name, value in shown.items() if value is not None}


def _etag(location: Location | None) -> str | None:
    """Of data that stay at a URL, what their server calls them: VISOR's checksum, although it need not be one."""
    version = str(location.metadata.get("version", "")) if location is not None else ""
    return version.strip('"') if version.startswith('"') else None


def brief(image: ImageRecord, base: str) -> Shown:
    """An image in the short list."""
    shown = detail(image, base)
    return {name: shown[name] for name in BRIEF if name in shown}


def headers(image: ImageRecord, base: str) -> Headers:
    """An image as headers."""
    shown = detail(image, base)
    return [(f"{PREFIX}{safe(name, is_name=True)}", safe(str(value))) for name, value in shown.items()]


def _value(text: str) -> object:
    """A custom attribute's value: a number, where it reads as one and loses nothing by it."""
    if len(text) > len(str(-INT64)):
        return text
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if str(number) == text and abs(number) <= INT64:  # neither "007" nor "nan"
            return number
    return text
