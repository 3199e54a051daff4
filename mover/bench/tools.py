"""The programs a bench needs beside Mover, and the packages that hold them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable

from mover.bench.errors import MissingToolError

# Debian's names; elsewhere they are close enough to search by.
PACKAGES = {
    "curl": "curl",
    "mkfs.ext4": "e2fsprogs",
    "nbdcopy": "libnbd-bin",
    "nbdkit": "nbdkit",
    "openssl": "openssl",
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "qemu-nbd": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "wrk": "wrk",
}

# mkfs lives in /usr/sbin, which is not on an ordinary user's PATH.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def require(tools: Iterable[str]) -> None:
    """Raise MissingToolError for the first of `tools` that is not installed."""
    for tool in tools:
        path(tool)


def path(tool: str) -> str:
    """Return the path of `tool`, or raise MissingToolError."""
    found = shutil.which(tool, path=SEARCH_PATH)
    if found is None:
        raise MissingToolError(tool, PACKAGES[tool])
    return found
