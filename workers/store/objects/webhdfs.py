"""Files of a directory of HDFS, by way of its HTTP API; a large one is made of files that are joined.

DIRECTORY/.segments/NAME/00000000, 00000001, ...   part_bytes each
DIRECTORY/NAME                                     the first of them, when all others are joined to it and it is renamed

Appending would do with one file, but what is appended twice, since the first answer was lost, is there twice, perhaps
long after that. A segment that is written twice is the same. OpenDAL's binding has no call for joining and renaming;
HDFS does both at once or not at all.
"""

from __future__ import annotations

import errno
import http.client
import json
from collections.abc import Callable
from functools import partial
from urllib.parse import quote, urlencode

import opendal

from config.store_settings import WebhdfsStore
from workers.store.objects.asking import Answer, Request, ask_again
from workers.store.objects.credentials import DELEGATION, read_credentials
from workers.store.objects.objects import Objects, layered, os_error
from workers.store.objects.writing import SegmentWriter

SEGMENTS = ".segments/"
# Their names are in the request's line, of which servers take 64 KiB.
JOINED_AT_ONCE = 64
TRIES = 4


class WebhdfsObjects(Objects):
    """The directory of a store."""

    store: WebhdfsStore

    def __init__(self, store: WebhdfsStore) -> None:
        credentials = read_credentials(store)
        user, delegation = credentials["user"], credentials[DELEGATION]
        given = {"user_name": user, "delegation": delegation}
        operator = opendal.Operator(
            "webhdfs",
            endpoint=store.endpoint,
            root=store.directory,
            **{name: value for name, value in given.items() if value},
        )
        self._who = {name: value for name, value in (("user.name", user), ("delegation", delegation)) if value}
        super().__init__(store, layered(operator))

    def begin(self, name: str, size: int | None) -> SegmentWriter:
        """Segments first, which become the file."""
        return SegmentWriter(self.store.part_bytes, _Segments(self, name))

    def end(self, name: str) -> None:
        """The file, and its segments."""
        self.delete(name)
        self.call("DELETE", "DELETE", f"{SEGMENTS}{name}", recursive="true")

    def remove(self, name: str) -> None:
        """One that is whole has no segments."""
        self.delete(name)

    def path(self, name: str) -> str:
        """Where it is in HDFS."""
        return f"{self.store.directory.rstrip('/')}/{name}"

    def call(self, method: str, operation: str, name: str, **query: str) -> bool:
        """Ask the name node; whether it says that it was done. Raises OSError."""
        sent = urlencode({"op": operation, **query, **self._who})
        url = f"{self.store.endpoint.rstrip('/')}/webhdfs/v1{quote(self.path(name))}?{sent}"
        try:
            answer = ask_again(Request(method, url, {"Content-Length": "0"}))
        except OSError as error:
            raise OSError(errno.EIO, "it cannot be reached, or breaks off") from error
        if answer.status != http.client.OK:
            raise _refused(answer)
        return not answer.body or json.loads(answer.body).get("boolean", True) is True


def _refused(answer: Answer) -> OSError:
    """In the words for what OpenDAL says of the same answer."""
    kind = {401: "PermissionDenied", 403: "PermissionDenied", 404: "NotFound"}.get(answer.status, "Unexpected")
    try:
        name = json.loads(answer.body)["RemoteException"]["exception"]
    except (ValueError, KeyError, TypeError):
        return os_error(f"{kind} status: {answer.status}")
    return os_error(f'{kind} status: {answer.status} exception: "{name}"')


class _Segments:
    """Of one file."""

    def __init__(self, objects: WebhdfsObjects, name: str) -> None:
        self._objects = objects
        self._name = name

    def _segment(self, number: int) -> str:
        return f"{SEGMENTS}{self._name}/{number:08}"

    def put_piece(self, number: int, data: bytes) -> None:
        """A segment."""
        self._objects.write(self._segment(number), data)

    def put_whole(self, data: bytes) -> None:
        """The file: a segment first, since a file is seen while it is written."""
        self.put_piece(0, data)
        self.compose([len(data)])

    def compose(self, sizes: list[int]) -> None:
        """Join all to the first, and give it its name."""
        objects, first, joined = self._objects, self._segment(0), sizes[0]
        for at in range(1, len(sizes), JOINED_AT_ONCE):
            numbers = range(at, min(at + JOINED_AT_ONCE, len(sizes)))
            sources = ",".join(objects.path(self._segment(number)) for number in numbers)
            joined += sum(sizes[number] for number in numbers)
            self._until(first, joined, partial(objects.call, "POST", "CONCAT", first, sources=sources))
        to = objects.path(self._name)
        self._until(self._name, joined, lambda: objects.call("PUT", "RENAME", first, destination=to))
        objects.call("DELETE", "DELETE", f"{SEGMENTS}{self._name}", recursive="true")

    def _until(self, name: str, size: int, change: Callable[[], bool]) -> None:
        """Have HDFS do it; what has failed may have been done all the same, which the file's size tells."""
        for left in reversed(range(TRIES)):
            try:
                change()
            except OSError as error:
                if self._objects.size(name) == size:
                    return
                if not left or error.errno in (errno.EACCES, errno.ENOSPC):
                    raise
            else:
                if self._objects.size(name) == size:
                    return
        raise OSError(errno.EIO, "the pieces of the image could not be joined")
