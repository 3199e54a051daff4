"""A file that tells who may ask: read again when it is another one, at one `stat` a request."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

Read = TypeVar("Read")
Value = TypeVar("Value")

_NO_FILE = (0, 0, 0, 0)


class Watched(Generic[Read, Value]):
    """What `read` makes of the file, and `index` of that. `read` is None where there is no file, and raises its own
    error for one that cannot be used: then nothing is remembered, and the next request tries again.
    """

    def __init__(self, path: Path, read: Callable[[], Read | None], index: Callable[[Read], Value]) -> None:
        self._path = path
        self._read = read
        self._index = index
        self._seen: tuple[int, int, int, int] | None = None
        self._value: Value | None = None

    def value(self) -> Value | None:
        """None if there is no file. Raises what `read` raises."""
        seen = self._look()
        if seen is None or seen != self._seen:
            self._seen = None
            found = self._read()
            self._value = None if found is None else self._index(found)
            self._seen = seen
        return self._value

    def _look(self) -> tuple[int, int, int, int] | None:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return _NO_FILE
        except OSError:
            return None  # what is wrong with it, `read` says
        # The mode counts: a file of secrets that others may read is refused until it is mended.
        return found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode
