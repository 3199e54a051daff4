"""The names in a repository: of disks, and of the files of their points in time.

REPO/repository.json
REPO/VM/DISK/writing.lock, reading.lock
REPO/VM/DISK/000001.json, 000001.qcow2, 000001.digests
REPO/VM/DISK/000007.json, 000007.merged.qcow2, 000007.merged.digests
REPO/VM/DISK/.000008.qcow2.new                                         not yet published
"""

from __future__ import annotations

import re

REPOSITORY_FILE = "repository.json"
WRITING_LOCK = "writing.lock"
READING_LOCK = "reading.lock"

MOST_NAME_BYTES = 100
SEGMENT = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._-]{{0,{MOST_NAME_BYTES - 1}}}")
MANIFEST = re.compile(r"(\d{6,})\.json")
# Whatever the repository may have made for a point, published or not: the sweep touches nothing else.
OURS = re.compile(r"\.?(\d{6,})(\.merged)?\.(json|qcow2|digests)(\.new)?")


def check_disk(name: str) -> None:
    """Raises ValueError for what is no name of a disk."""
    segments = name.split("/")
    if len(segments) != 2 or not all(SEGMENT.fullmatch(segment) for segment in segments):
        raise ValueError(
            f"{name!r} is not VM/DISK: two names of letters, digits, '.', '_' and '-', that begin with neither '.' "
            f"nor '-', of {MOST_NAME_BYTES} characters at most"
        )


def manifest_name(point: int) -> str:
    """The name of a point's manifest."""
    return f"{point:06}.json"


def file_names(point: int, *, merged: bool = False) -> tuple[str, str]:
    """The names of a point's qcow2 file and of its digests. One that was merged never has the name it had before."""
    stem = f"{point:06}.merged" if merged else f"{point:06}"
    return f"{stem}.qcow2", f"{stem}.digests"


def new_name(name: str) -> str:
    """What a file is called until it is published."""
    return f".{name}.new"


def point_of(name: str) -> int | None:
    """The point that a file was made for, None if it is none of the repository's."""
    match = OURS.fullmatch(name)
    return int(match[1]) if match else None
