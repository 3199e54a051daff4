"""Files of a directory of HDFS, by way of its HTTP API; a large one is appended to, piece after piece.

HDFS has neither parts nor a name that appears at once, so a file is seen while it grows: its upload's record tells
when it is whole.
"""

from __future__ import annotations

import errno

import opendal

from config.store_settings import WebhdfsStore
from workers.store.credentials import DELEGATION, read_credentials
from workers.store.objects import Objects, attempt, layered, timed
from workers.store.writing import Pieces

TRIES = 4


class WebhdfsObjects(Objects):
    """The directory of a store."""

    store: WebhdfsStore
    whole_when_seen = False

    def __init__(self, store: WebhdfsStore) -> None:
        credentials = read_credentials(store)
        given = {"user_name": credentials["user"], "delegation": credentials[DELEGATION]}
        operator = opendal.Operator(
            "webhdfs",
            endpoint=store.endpoint,
            root=store.directory,
            **{name: value for name, value in given.items() if value},
        )
        super().__init__(store, layered(operator))
        self._once = timed(operator)

    def begin(self, name: str, size: int | None) -> AppendWriter:
        """The file is made with the first piece."""
        return AppendWriter(self, name, self.store.part_bytes)

    def end(self, name: str) -> None:
        """There is only the file."""
        self.delete(name)

    def append(self, name: str, data: bytes) -> None:
        """Once: whether what has failed was done all the same, only the file's size tells."""
        attempt(lambda: self._once.write(name, data, append=True))


class AppendWriter:
    """Appends pieces, each only to a file that ends where the piece begins."""

    def __init__(self, objects: WebhdfsObjects, name: str, part_bytes: int) -> None:
        self._objects = objects
        self._name = name
        self._at = 0
        self._pieces = Pieces(part_bytes, self._append)

    def write(self, data: bytes) -> None:
        """The next bytes."""
        self._pieces.add(data)

    def _append(self, piece: bytes) -> None:
        """A piece that came in part, or twice, is found by the file's size, and nobody can take it back."""
        for left in reversed(range(TRIES)):
            try:
                self._put(piece)
            except PermissionError:
                raise
            except OSError as error:
                if error.errno == errno.ENOSPC or not left:
                    raise
            found = self._objects.size(self._name)
            if found == self._at + len(piece):
                self._at = found
                return
            if (found or 0) != self._at:
                raise OSError(errno.EIO, f"a piece of the image came in part: {found} bytes are there")
        raise OSError(errno.EIO, "a piece of the image did not come")

    def _put(self, piece: bytes) -> None:
        if self._at:
            self._objects.append(self._name, piece)
        else:
            self._objects.write(self._name, piece)

    def close(self) -> None:
        """Append what is left."""
        self._pieces.flush()

    def stop(self) -> None:
        """Nothing is under way."""
