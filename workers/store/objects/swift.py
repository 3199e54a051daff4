"""Objects of a container of OpenStack Swift; a large one is a manifest of segments (SLO).

PREFIX.segments/NAME/00000000, 00000001, ...   part_bytes each
PREFIX.segments/NAME/m0000, ...                manifests of 1000 segments, where there are more
PREFIX NAME                                    the manifest that is the object; seen when all segments are there

OpenDAL has a writer that makes manifests, but its token ends with Keystone's hour, and it stops at 1000 segments. Here
each segment is a write of OpenDAL's by itself, and only manifests, which it has no other call for, are sent by us.
"""

from __future__ import annotations

import errno
import http.client
import threading
from collections.abc import Callable
from typing import TypeVar

import msgspec
import opendal

from config.store_settings import SwiftStore
from workers.store.backing import Refusal
from workers.store.objects.asking import Request, ask_again
from workers.store.objects.credentials import read_credentials
from workers.store.objects.objects import FULL_STATUSES, Objects, attempt, layered
from workers.store.objects.swift_auth import Token, authenticate
from workers.store.objects.writing import SegmentWriter

T = TypeVar("T")

SEGMENTS = ".segments/"
# Swift's own limit of a manifest, unless its operator has set another one; a manifest of manifests may have as many.
MANIFEST_MOST = 1000
# Swift asks for every segment before it answers.
MANIFEST_S = 120.0


class SwiftObjects(Objects):
    """The container of a store. A token that has ended is replaced, and what it was refused for is done again."""

    store: SwiftStore

    def __init__(self, store: SwiftStore) -> None:
        self._token = authenticate(store, read_credentials(store))
        self._renewing = threading.Lock()
        super().__init__(store, _operator(store, self._token))

    # -- tokens ----------------------------------------------------------------------------------------------

    def attempt(self, call: Callable[[], T]) -> T:
        """As of all objects; once more with a new token where this one is refused."""
        token = self._token
        try:
            return attempt(call)
        except PermissionError:
            self._renew(token)
            return attempt(call)

    def _renew(self, refused: Token) -> None:
        """Raises OSError."""
        with self._renewing:
            if self._token is not refused:
                return  # another thread has
            try:
                self._token = authenticate(self.store, read_credentials(self.store))
            except Refusal as refusal:
                raise OSError(errno.EACCES, refusal.message) from refusal
            self.operator = _operator(self.store, self._token)

    # -- segments --------------------------------------------------------------------------------------------

    def begin(self, name: str, size: int | None) -> SegmentWriter:
        """Segments first, then the manifest."""
        return SegmentWriter(self.store.part_bytes, _Segments(self, name, self.segments_of(name)))

    def segments_of(self, name: str) -> str:
        """What the names of an object's segments begin with."""
        prefix = self.store.prefix
        return f"{prefix}{SEGMENTS}{name.removeprefix(prefix)}/"

    def put_manifest(self, name: str, segments: list[tuple[str, int]]) -> None:
        """One object of others: their names and sizes. Raises OSError."""
        container = self.store.container
        body = msgspec.json.encode([{"path": f"/{container}/{path}", "size_bytes": size} for path, size in segments])
        self.attempt(lambda: self._put_manifest(name, body))

    def _put_manifest(self, name: str, body: bytes) -> None:
        url, token = self._token
        target = f"{url}/{self.store.container}/{name}?multipart-manifest=put"
        try:
            answer = ask_again(Request("PUT", target, {"X-Auth-Token": token}, body, MANIFEST_S))
        except OSError as error:
            raise OSError(errno.EIO, "it cannot be reached, or breaks off") from error
        if answer.status in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
            raise OSError(errno.EACCES, "access denied")
        if str(answer.status) in FULL_STATUSES:
            raise OSError(errno.ENOSPC, "it has no room")
        if answer.status not in (http.client.OK, http.client.CREATED):
            raise OSError(errno.EIO, f"it answers {answer.status} to a manifest")

    def end(self, name: str) -> None:
        """The object first: without its segments it would be read in part."""
        self.delete(name)
        below = self.segments_of(name)
        for path in self.names(below):
            self.delete(path)


class _Segments:
    """Of one object."""

    def __init__(self, objects: SwiftObjects, name: str, below: str) -> None:
        self._objects = objects
        self._name = name
        self._below = below

    def put_piece(self, number: int, data: bytes) -> None:
        """A segment."""
        self._objects.write(f"{self._below}{number:08}", data)

    def put_whole(self, data: bytes) -> None:
        """The object."""
        self._objects.write(self._name, data)

    def compose(self, sizes: list[int]) -> None:
        """A manifest, or one of manifests."""
        if len(sizes) > MANIFEST_MOST**2:
            raise OSError(errno.EFBIG, f"it takes {MANIFEST_MOST**2} segments at most: raise part_bytes")
        parts = [(f"{self._below}{number:08}", size) for number, size in enumerate(sizes)]
        if len(parts) > MANIFEST_MOST:
            groups = [parts[at : at + MANIFEST_MOST] for at in range(0, len(parts), MANIFEST_MOST)]
            parts = []
            for number, group in enumerate(groups):
                manifest = f"{self._below}m{number:04}"
                self._objects.put_manifest(manifest, group)
                parts.append((manifest, sum(size for _, size in group)))
        self._objects.put_manifest(self._name, parts)


def _operator(store: SwiftStore, token: Token) -> opendal.Operator:
    return layered(opendal.Operator("swift", endpoint=token.url, container=store.container, token=token.token))
