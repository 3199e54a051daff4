"""A Client: one image on one server, for one thread at a time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec

from mover.client import extents as listing
from mover.client.address import Address, Tls
from mover.client.errors import ClientError
from mover.client.extents import Extent, ExtentsWrong
from mover.client.link import AUTO, TEXT_BYTES, Link, Options, UnixSocket
from mover.client.patience import PATIENCE_S, Patience, Sleep
from mover.client.ranges import Range
from mover.client.wire import Buffer, Connection, NotHttp, Reply, WireBroken

T = TypeVar("T")

DEFAULT_ALGORITHM = "blake2b"
DEFAULT_BLOCK_BYTES = 4 * 1024 * 1024
# A URL with a mistake should not take a minute to be told.
FIRST_CONTACT_S = 3.0


class Checksum(msgspec.Struct, frozen=True):
    """The blkhash of an image: the hash over the digests of its blocks."""

    algorithm: str
    block_size: int
    checksum: str


class Client:
    """An image at `url`, by one connection. `again()` makes another client for another thread.

    `unix_socket`: "auto" takes the one that the server names if it is on this host, None takes none, and a path
    takes that one in place of the URL's host. What fails is tried again until nothing has worked for `patience_s`.
    The environment's proxies are never used. Every method raises ClientError.
    """

    def __init__(
        self,
        url: str,
        *,
        tls: Tls | None = None,
        token: str | None = None,
        unix_socket: UnixSocket = AUTO,
        patience_s: float = PATIENCE_S,
        sleep: Sleep = time.sleep,
    ) -> None:
        """Raises ValueError for what is no URL of an image. The first request connects."""
        self.url = url
        self._link = Link(Address.parse(url), tls or Tls(), token, unix_socket)
        self._patience_s = patience_s
        self._sleep = sleep
        self._options: Options | None = None

    @property
    def sleep(self) -> Sleep:
        """What it waits by."""
        return self._sleep

    def again(self, sleep: Sleep | None = None) -> Client:
        """A client for the same image, with a connection of its own; `sleep` is what it waits by, between tries."""
        client = Client.__new__(Client)
        client.__dict__.update(self.__dict__)
        client._link = self._link.again()
        client._sleep = sleep or self._sleep
        return client

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection. This flushes nothing."""
        self._link.close()

    def abort(self) -> None:
        """From another thread: what is under way ends with an error, and nothing new begins."""
        self._link.abort()

    @property
    def by_unix_socket(self) -> bool:
        """The connection is through a Unix socket."""
        return self._link.by_unix_socket

    # -- what there is ---------------------------------------------------------------------------------------

    def options(self) -> Options:
        """What the server allows for the image; asked once."""
        if self._options is None:
            self._options = self._again_and_again(
                lambda: self._json("options", "OPTIONS", self._link.address.target, Options)
            )
        return self._options

    def size(self) -> int:
        """The size of the image in bytes."""
        return self._again_and_again(self._ask_size)

    def extents(self, context: str = "zero") -> Iterator[Extent]:
        """The extents of the whole image from 0 on, without gaps; `context` is "zero" or "dirty".

        Of a server that lists none, the whole image is one extent of data. They come as the server sends them: a
        connection that breaks meanwhile raises BrokenError, and the caller begins again.
        """
        if context == "zero" and "extents" not in self.options().features:
            size = self.size()
            return iter([Extent(0, size, zero=False)] if size else [])
        return self._again_and_again(lambda: self._list_extents(context))

    def all_extents(self, context: str = "zero") -> list[Extent]:
        """All extents at once; listed anew where the connection breaks in the middle."""
        return self._again_and_again(lambda: list(self.extents(context)))

    def checksum(self, algorithm: str = DEFAULT_ALGORITHM, block_size: int = DEFAULT_BLOCK_BYTES) -> Checksum:
        """The server's checksum of the whole image. It takes as long as reading all of the data."""
        asked = urlencode({"algorithm": algorithm, "block_size": block_size})
        target = f"{self._link.address.target}/checksum?{asked}"
        return self._again_and_again(lambda: self._json("checksum", "GET", target, Checksum, endless=True))

    # -- bytes -----------------------------------------------------------------------------------------------

    def read_into(self, offset: int, buffer: Buffer) -> None:
        """Fill a writable buffer with the image's bytes from `offset` on."""
        view = memoryview(buffer).cast("B")
        if len(view):
            self._again_and_again(lambda: self._read_into(offset, view))

    def write(self, offset: int, buffer: Buffer, *, flush: bool = False) -> None:
        """Write a buffer at `offset`."""
        view = memoryview(buffer).cast("B")
        if len(view):
            self._again_and_again(lambda: self.put(offset, [view], flush=flush))

    def zero(self, offset: int, length: int) -> None:
        """Make [offset, offset + length) read as zeros. Needs "zero" in the options' features."""
        change = {"op": "zero", "offset": offset, "size": length, "flush": False}
        self._again_and_again(lambda: self._patch("zero", offset, length, change))

    def flush(self) -> None:
        """Have everything that was answered before on this connection made durable.

        Raises LostWritesError where that cannot be, and BrokenError, after one try, where the connection breaks:
        whether the server had a loss to tell is unknown then, so what was not flushed must be written again.
        """
        self._patch("flush", 0, 0, {"op": "flush"})

    # -- one try each: what jobs are made of -----------------------------------------------------------------

    def patience(self) -> Patience:
        """A new one, as this client was told to have; shorter as long as the server has never been there."""
        seconds = self._patience_s if self._link.reached else min(self._patience_s, FIRST_CONTACT_S)
        return Patience(seconds, self._sleep)

    @contextlib.contextmanager
    def reading(self, offset: int, length: int, ahead: Sequence[Range] = ()) -> Iterator[Reply]:
        """One GET of a range: fill buffers, `length` bytes in all, from what is yielded.

        `ahead` are the ranges that will be asked for next, in order: their requests may be sent already.
        """
        with self._link.errors("read", offset, length):
            reply = self._link.get(offset, length, ahead)
            if reply.status not in (200, 206):
                raise self._link.refusal(reply, "read", offset, length)
            if reply.status == 200 and offset:
                raise NotHttp("it sends the whole image where a range was asked for")
            if reply.length is None or reply.length < length:
                raise NotHttp(f"it sends {reply.length} bytes")
            yield reply
            self._link.finished(reply)

    @contextlib.contextmanager
    def writing(self, offset: int, length: int, *, flush: bool = False, whole: bool = False) -> Iterator[Connection]:
        """One PUT of a range, whose `length` bytes the caller sends by what is yielded. `whole`: they are all."""
        with self._link.errors("write", offset, length):
            connection = self._link.connection()
            headers: dict[str, str | int] = {"Content-Type": "application/octet-stream", "Content-Length": length}
            if not whole:
                headers["Content-Range"] = f"bytes {offset}-{offset + length - 1}/*"
            target = f"{self._link.address.target}?flush={'y' if flush else 'n'}"
            try:
                connection.send_pieces(connection.head("PUT", target, headers))
                yield connection
            except WireBroken as error:
                self._refused_early(connection, offset, length)
                raise error
            self._written(connection.reply(), offset, length)

    def put(self, offset: int, pieces: Sequence[Buffer], *, flush: bool = False) -> None:
        """One PUT of the bytes in `pieces` at `offset`."""
        with self.writing(offset, sum(len(piece) for piece in pieces), flush=flush) as connection:
            connection.send_pieces(*pieces)

    def _refused_early(self, connection: Connection, offset: int, length: int) -> None:
        """The server stopped listening; perhaps it has said why. Raises RefusedError then."""
        try:
            reply = connection.reply()
        except (WireBroken, NotHttp):
            return
        if reply.status >= 300:
            error = self._link.refusal(reply, "write", offset, length)
            self.close()
            raise error

    def _written(self, reply: Reply, offset: int, length: int) -> None:
        if reply.status not in (200, 204):
            raise self._link.refusal(reply, "write", offset, length)
        reply.text(TEXT_BYTES)
        self._link.finished(reply)

    def _read_into(self, offset: int, view: memoryview) -> None:
        with self.reading(offset, len(view)) as reply:
            reply.fill(view)

    # -- asking ----------------------------------------------------------------------------------------------

    def _ask_size(self) -> int:
        """By a read of one byte: every server's answer to it names the size, but not every server has HEAD."""
        with self._link.errors("size"):
            connection = self._link.connection()
            connection.send("GET", self._link.address.target, {"Range": "bytes=0-0"})
            reply = connection.reply()
            if reply.status not in (200, 206, 416):
                raise self._link.refusal(reply, "size", 0, 0)
            size = reply.headers.get("content-range", "").rpartition("/")[2]
            if reply.status == 200:
                size = str(reply.length)  # the whole image is on its way: the connection is given up
            else:
                reply.text(TEXT_BYTES)
            self._link.finished(reply)
            if not size.isdecimal():
                raise NotHttp(f"it does not say how large the image is but {size[:40]!r}")
            return int(size)

    def _list_extents(self, context: str) -> Iterator[Extent]:
        with self._link.errors("extents"):
            connection = self._link.connection()
            target = f"{self._link.address.target}/extents?context={context}"
            connection.send("GET", target, {"Accept": "application/x-ndjson, application/json;q=0.5"})
            reply = connection.reply()
            if reply.status != 200:
                raise self._link.refusal(reply, "extents", 0, 0)
        return self._extents_of(reply)

    def _extents_of(self, reply: Reply) -> Iterator[Extent]:
        with self._link.errors("extents"):
            try:
                yield from listing.parse(reply.pieces())
            except ExtentsWrong as error:
                raise NotHttp(str(error)) from error
            self._link.finished(reply)

    def _patch(self, operation: str, offset: int, length: int, change: dict[str, Any]) -> None:
        with self._link.errors(operation, offset, length):
            body = msgspec.json.encode(change)
            self._link.request(operation, "PATCH", self._link.address.target, body, offset, length)

    def _json(self, operation: str, method: str, target: str, kind: type[T], *, endless: bool = False) -> T:
        with self._link.errors(operation):
            text = self._link.request(operation, method, target, endless=endless)
            try:
                return msgspec.json.decode(text, type=kind)
            except msgspec.DecodeError as error:
                raise NotHttp(f"it answers with something else: {error}") from error

    def _again_and_again(self, attempt: Callable[[], T]) -> T:
        patience = self.patience()
        while True:
            try:
                return attempt()
            except ClientError as error:
                patience.failed(error)
