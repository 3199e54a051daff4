"""A file store's metadata file: which mountpoint an image lies under, for who has the same file system mounted."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from workers.lane.store_format import Why
from workers.store.backing import Refusal

MOST_BYTES = 64 * 1024


class Mountpoint(msgspec.Struct, frozen=True):
    """One entry; what else stands in it goes into the location, too."""

    id: str
    mountpoint: str


def metadata(metadata_file: str, path: str) -> dict[str, Any]:
    """The entry whose mountpoint `path` lies under, the longest one; empty if there is none, or no file.

    Raises Refusal for a file that says something else, OSError for one that cannot be read.
    """
    if not metadata_file:
        return {}
    found: dict[str, Any] = {}
    for entry, raw in _entries(metadata_file):
        if is_under(path, entry.mountpoint) and len(entry.mountpoint) > len(found.get("mountpoint", "")):
            found = raw
    return dict(found)


def is_under(path: str, mountpoint: str) -> bool:
    """Whether the file lies under it, by whole names: `/mnt/a` is not above `/mnt/ab`."""
    return (os.path.normpath(path) + "/").startswith(os.path.normpath(mountpoint).rstrip("/") + "/")


def _entries(metadata_file: str) -> list[tuple[Mountpoint, dict[str, Any]]]:
    with open(metadata_file, "rb") as file:
        text = file.read(MOST_BYTES)
    try:
        raw: Any = msgspec.json.decode(text)
        raw = raw if isinstance(raw, list) else [raw]
        return [(msgspec.convert(one, Mountpoint), one) for one in raw]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        message = f"the store's metadata file holds no object or list of objects with id and mountpoint: {error}"
        raise Refusal(Why.GONE, message) from error
