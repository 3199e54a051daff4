"""Values that a v2 client gives an image, checked: what a create and a patch have in common."""

from __future__ import annotations

from typing import Any

from mover.library.checks import INT32, TEXT, check_text
from mover.library.errors import ApiError
from mover.library.formats import CONTAINER_FORMATS, DISK_FORMATS
from mover.library.records import Visibility
from mover.library.v2.words import READ_ONLY, RESERVED

# Properties that jobs set, as Glance's do.
JOBS_OWN = "os_glance_"


def check_name(name: str) -> None:
    """Raise ApiError 403 for what no client sets."""
    if name in READ_ONLY:
        raise ApiError(403, f"Attribute '{name}' is read-only.")
    if name in RESERVED or name.startswith(JOBS_OWN):
        raise ApiError(403, f"Attribute '{name}' is reserved.")


def check_value(name: str, value: Any) -> Any:
    """The value of a writable attribute as the registry keeps it. Raises ApiError 400."""
    match name:
        case "name" | "owner":
            return None if value is None else check_text(name, value, TEXT)
        case "disk_format" | "container_format":
            known = DISK_FORMATS if name == "disk_format" else CONTAINER_FORMATS
            if value is not None and value not in known:
                raise _wrong(name, value, f"one of {', '.join(known)}, or null")
            return value
        case "min_disk" | "min_ram":
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= INT32:
                raise _wrong(name, value, f"a whole number from 0 to {INT32}")
            return value
        case "protected" | "os_hidden":
            if not isinstance(value, bool):
                raise _wrong(name, value, "true or false")
            return value
        case "visibility":
            if not isinstance(value, str) or value not in list(Visibility):
                raise _wrong(name, value, f"one of {', '.join(Visibility)}")
            return Visibility(value)
    raise AssertionError(name)


def check_tags(value: Any, limit: int) -> tuple[str, ...]:
    """Tags in order, each once. Raises ApiError 400 and 413."""
    if not isinstance(value, list):
        raise _wrong("tags", value, "a list of strings")
    tags = tuple(sorted({check_text("tags", tag, TEXT) for tag in value}))
    if len(tags) > limit:
        raise ApiError(413, f"The limit has been exceeded on the number of allowed image tags: {limit}")
    return tags


def _wrong(name: str, value: Any, allowed: str) -> ApiError:
    return ApiError(400, f"Invalid value {str(value)[:80]!r} of '{name[:80]}': it must be {allowed}")
