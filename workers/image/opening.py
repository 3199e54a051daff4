"""Where a worker opens what a ticket names: where the path's links lead now, if that is still allowed."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable

from config.roots import NotAllowed, Roots, handle, pin

log = logging.getLogger(__name__)


def allowed(place: Callable[[str], str], path: str) -> str:
    """Where the path leads, by one of the methods of Roots. Raises OSError where it may not lead."""
    try:
        return place(path)
    except NotAllowed as refused:
        log.warning("not opened why=%s", refused)
        raise PermissionError(errno.EACCES, f"it is outside of {refused.key} now") from refused


class Pinned:
    """`with`: a path to what is at `place` now, which nobody can turn elsewhere. Raises OSError."""

    def __init__(self, place: str) -> None:
        self._fd = pin(place)
        self.path = handle(self._fd)

    def __enter__(self) -> str:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """The path is nobody's any more; closing it again does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Spot:
    """`with`: a file by its name in its directory, which is pinned: the file may not be there yet, or be replaced.

    Whoever opens `path` must not follow links: there was none. Raises OSError.
    """

    def __init__(self, path: str, roots: Roots | None) -> None:
        target = os.path.realpath(path) if roots is None else allowed(roots.file, path)
        directory, self.name = os.path.split(target)
        self._directory = Pinned(directory)
        self.directory = self._directory.path
        self.path = f"{self.directory}/{self.name}"

    def __enter__(self) -> Spot:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """The directory is let go."""
        self._directory.close()
