"""A second name for a file, never in the place of another: link(2), or where there are no links, renameat2(2)."""

from __future__ import annotations

import ctypes
import errno
import os

RENAME_NOREPLACE = 1
AT_FDCWD = -100
# vfat and some network and FUSE file systems know one name for a file.
NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


def link_new(path: str, new: str) -> None:
    """Give the file at `path` the name `new`; the old one may be gone after that. Raises FileExistsError, OSError."""
    try:
        os.link(path, new)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        rename_new(path, new)


def rename_new(path: str, new: str) -> None:
    """Rename, unless there is something at `new`. Raises FileExistsError, OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_FDCWD, os.fsencode(path), AT_FDCWD, os.fsencode(new), RENAME_NOREPLACE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), new)
