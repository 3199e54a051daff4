"""The names that directories of file stores bear: a file in each, so that hosts know whether they mean the same one.

Two hosts may both keep images in /srv/images: one directory if it is on a server that both have mounted, else two.
"""

from __future__ import annotations

import os
import secrets

FILE = ".mover-volume"
# What is longer is no name of ours.
NAME_BYTES = 32


def volume_of(directory: str) -> str:
    """The directory's name; empty if it bears none, or is not there."""
    try:
        with open(os.path.join(directory, FILE), encoding="ascii", errors="replace") as file:
            return file.read(NAME_BYTES).strip()
    except OSError:
        return ""


def name_volume(directory: str) -> None:
    """Give the directory a name, unless it has one; who races for it finds the winner's. Raises OSError."""
    if volume_of(directory):
        return
    name = secrets.token_hex(8)
    beside = os.path.join(directory, f"{FILE}.{name}")
    with open(beside, "x", encoding="ascii") as file:
        file.write(f"{name}\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(beside, os.path.join(directory, FILE))
    except FileExistsError:
        pass
    finally:
        os.unlink(beside)
