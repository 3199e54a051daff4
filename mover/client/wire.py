"""One HTTP/1.1 connection: heads of a few hundred bytes, and bodies that go from and into the caller's memory.

Of HTTP only what servers of images speak: Content-Length, chunks, and bodies that end with the connection.
"""

from __future__ import annotations

import socket
import ssl
import string
from collections.abc import Iterator, Mapping, Sequence

# A head larger than this is none of ours.
MOST_HEAD_BYTES = 64 * 1024
# What arrives with a head is copied out of its buffer: little, so that the rest goes straight where it belongs.
HEAD_BYTES = 4096
# Texts: extents, errors, checksums.
TEXT_BYTES = 64 * 1024
MOST_INTERIM = 8
CRLF = b"\r\n"
HEX = string.hexdigits.encode()

Buffer = bytes | bytearray | memoryview


class WireBroken(Exception):
    """The connection broke, ended early, or nothing came in time."""


class NotHttp(Exception):
    """What arrived is not HTTP/1.x, or not of the kinds that this file knows."""


class Connection:
    """A connected socket with one request under way at a time. It is closed with whatever went wrong on it."""

    def __init__(self, sock: socket.socket, host: str, headers: Mapping[str, str]) -> None:
        """`headers` go with every request."""
        self.sock = sock
        self._common = "".join(f"{name}: {value}\r\n" for name, value in {"Host": host, **headers}.items())
        self._ahead = bytearray()  # arrived, and not yet asked for

    def close(self) -> None:
        """End it, from any thread: whoever waits for it wakes up with WireBroken."""
        try:
            # SSLSocket.shutdown would forget TLS under the feet of the thread that waits: the plain one.
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)
        except OSError:
            pass  # it is not connected any more

    def release(self) -> None:
        """Close the socket; by the thread that uses it."""
        self.sock.close()

    # -- sending ---------------------------------------------------------------------------------------------

    def send(
        self, method: str, target: str, headers: Mapping[str, str | int] | None = None, body: Sequence[Buffer] = ()
    ) -> None:
        """Send one request with a body of these pieces, if there are any. Raises WireBroken."""
        length = sum(len(piece) for piece in body)
        own = dict(headers or {}) | ({"Content-Length": length} if body or method in ("PUT", "PATCH", "POST") else {})
        self.send_pieces(self.head(method, target, own), *body)

    def head(self, method: str, target: str, headers: Mapping[str, str | int]) -> bytes:
        """The bytes of a request's head."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"{method} {target} HTTP/1.1\r\n{self._common}{lines}\r\n".encode("ascii")

    def send_pieces(self, *pieces: Buffer) -> None:
        """Send all of these bytes, from where they are. Raises WireBroken."""
        try:
            if len(pieces) > 1 and not isinstance(self.sock, ssl.SSLSocket):
                self._send_together(list(pieces))
            else:
                for piece in pieces:
                    self.sock.sendall(piece)
        except OSError as error:
            raise WireBroken(_why(error)) from error

    def _send_together(self, pieces: list[Buffer]) -> None:
        """The head and the first bytes of the body in one packet."""
        sent = self.sock.sendmsg(pieces)
        for piece in pieces:
            if sent < len(piece):
                self.sock.sendall(memoryview(piece)[sent:])
            sent = max(sent - len(piece), 0)

    # -- receiving -------------------------------------------------------------------------------------------

    def reply(self) -> Reply:
        """Read the head of an answer, after interim ones. Raises WireBroken, NotHttp."""
        for _ in range(MOST_INTERIM):
            reply = self._reply()
            if reply.status >= 200:
                return reply
        raise NotHttp("interim answers without end")

    def _reply(self) -> Reply:
        while (end := self._ahead.find(b"\r\n\r\n")) < 0:
            if len(self._ahead) > MOST_HEAD_BYTES:
                raise NotHttp(f"a head of more than {MOST_HEAD_BYTES} bytes")
            self._receive_more(HEAD_BYTES)
        lines = self._ahead[:end].decode("latin-1").split("\r\n")
        del self._ahead[: end + 4]
        return Reply(self, *_parse_head(lines))

    def fill(self, view: memoryview) -> None:
        """Read exactly as many bytes as `view` has room for. Raises WireBroken."""
        at = self._take_ahead(view)
        receive = self.sock.recv_into
        try:
            while at < len(view):
                count = receive(view[at:])
                if not count:
                    raise WireBroken("the server ended the connection in the middle of a body")
                at += count
        except OSError as error:
            raise WireBroken(_why(error)) from error

    def receive(self, view: memoryview) -> int:
        """Read some bytes, at least one; 0 at the connection's end. Raises WireBroken."""
        if self._ahead:
            return self._take_ahead(view)
        try:
            return self.sock.recv_into(view)
        except OSError as error:
            raise WireBroken(_why(error)) from error

    def line(self) -> bytes:
        """Read one line, without its end. Raises WireBroken, NotHttp."""
        while (end := self._ahead.find(CRLF)) < 0:
            if len(self._ahead) > MOST_HEAD_BYTES:
                raise NotHttp("a line without end")
            self._receive_more(HEAD_BYTES)
        line = bytes(self._ahead[:end])
        del self._ahead[: end + 2]
        return line

    def _take_ahead(self, view: memoryview) -> int:
        count = min(len(self._ahead), len(view))
        if count:
            view[:count] = self._ahead[:count]
            del self._ahead[:count]
        return count

    def _receive_more(self, most: int) -> None:
        try:
            received = self.sock.recv(most)
        except OSError as error:
            raise WireBroken(_why(error)) from error
        if not received:
            raise WireBroken("the server ended the connection without an answer")
        self._ahead += received


class Reply:
    """An answer's head, and its body as it is read. `length` is None where only its end tells."""

    def __init__(self, connection: Connection, status: int, reason: str, headers: dict[str, str]) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self._connection = connection
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        if not self._chunked and "transfer-encoding" in headers:
            raise NotHttp(f"transfer encoding {headers['transfer-encoding'][:80]!r}")
        self.length = None if self._chunked else _content_length(status, headers)
        self._left = self.length if self.length is not None else 0
        self._ended = self.length == 0

    @property
    def ends_connection(self) -> bool:
        """No other request may follow on this connection."""
        endless = self.length is None and not self._chunked
        return endless or self.headers.get("connection", "").lower() == "close"

    @property
    def ended(self) -> bool:
        """The whole body has been read."""
        return self._ended

    def fill(self, view: memoryview) -> None:
        """Read the next len(view) bytes of a body of known length. Raises WireBroken, NotHttp."""
        if len(view) > self._left:
            raise NotHttp(f"a body that is {len(view) - self._left} bytes too short")
        self._connection.fill(view)
        self._left -= len(view)
        self._ended = self._left == 0

    def text(self, most: int) -> bytes:
        """The whole body, cut after about `most` bytes. Raises WireBroken, NotHttp."""
        text = bytearray()
        for piece in self.pieces():
            text += piece
            if len(text) > most:
                break
        return bytes(text)

    def pieces(self) -> Iterator[memoryview]:
        """The body, piece by piece as it comes; each is valid until the next. Raises WireBroken, NotHttp."""
        buffer = memoryview(bytearray(TEXT_BYTES))
        if self._chunked:
            yield from self._chunks(buffer)
        elif self.length is None:
            while count := self._connection.receive(buffer):
                yield buffer[:count]
        else:
            while self._left:
                piece = buffer[: min(self._left, TEXT_BYTES)]
                count = self._connection.receive(piece)
                if not count:
                    raise WireBroken("the server ended the connection in the middle of a body")
                self._left -= count
                yield piece[:count]
        self._ended = True

    def _chunks(self, buffer: memoryview) -> Iterator[memoryview]:
        while size := self._chunk_size():
            while size:
                count = self._connection.receive(buffer[: min(size, TEXT_BYTES)])
                if not count:
                    raise WireBroken("the server ended the connection in the middle of a body")
                size -= count
                yield buffer[:count]
            if self._connection.line():
                raise NotHttp("a chunk that does not end where it should")
        while self._connection.line():
            pass  # trailers

    def _chunk_size(self) -> int:
        line = self._connection.line().partition(b";")[0].strip()
        if not line or line.strip(HEX):
            raise NotHttp(f"a chunk of size {line[:20]!r}")
        return int(line, 16)


def _parse_head(lines: list[str]) -> tuple[int, str, dict[str, str]]:
    version, _, rest = lines[0].partition(" ")
    status, _, reason = rest.partition(" ")
    if not version.startswith("HTTP/1.") or not (status.isdecimal() and len(status) == 3):
        raise NotHttp(f"no HTTP/1.1 but {lines[0][:80]!r}")
    headers = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            raise NotHttp(f"a header without a colon: {line[:80]!r}")
        headers[name.strip().lower()] = value.strip()
    if version == "HTTP/1.0":
        headers.setdefault("connection", "close")
    return int(status), reason, headers


def _content_length(status: int, headers: Mapping[str, str]) -> int | None:
    text = headers.get("content-length")
    if status in (204, 304):
        return 0
    if text is None:
        return None
    if not text.isdecimal():
        raise NotHttp(f"Content-Length {text[:20]!r}")
    return int(text)


def _why(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "nothing came for too long"
    return error.strerror or str(error) or type(error).__name__
