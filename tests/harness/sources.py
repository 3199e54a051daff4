"""A server of sources for tests of URLs: it has what it is given, and its faults when a test wants them."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_RANGE = re.compile(r"bytes=(\d+)-(\d+)")

Fault = Callable[["Asked"], bool]
"""Whether the fault has answered the request; else the server does, as the fault has told it to."""


@dataclass
class Source:
    """One path of a server; without an `etag` nothing tells it from another one of its size."""

    data: bytes
    etag: str = '"1"'
    modified: str = ""
    ranges: bool = True
    chunked: bool = False


@dataclass
class Sources:
    """A server: `sources` by path, `fault` looks at each request first, `seen` has their lines and ranges.

    `connections` counts those that were accepted.
    """

    port: int
    scheme: str = "http"
    sources: dict[str, Source] = field(default_factory=dict)
    fault: Fault = lambda asked: False
    seen: list[str] = field(default_factory=list)
    connections: int = 0
    host: str = "127.0.0.1"

    def url(self, path: str) -> str:
        return f"{self.scheme}://{self.host}:{self.port}{path}"

    def put(self, path: str, data: bytes, **more: object) -> str:
        """Have a source at a path; its URL."""
        self.sources[path.partition("?")[0]] = Source(data, **more)  # type: ignore[arg-type]
        return self.url(path)


class Asked(BaseHTTPRequestHandler):
    """One request. A fault may set `cut_at`: so many bytes of the body are sent, and the connection is closed; or
    `changes`: headers that are sent instead, None for one that is left out.
    """

    protocol_version = "HTTP/1.1"
    server_of: Sources
    cut_at: int | None
    changes: dict[str, str | None]

    def setup(self) -> None:
        super().setup()
        self.server_of.connections += 1

    def do_GET(self) -> None:
        self.cut_at, self.changes = None, {}
        sources = self.server_of
        sources.seen.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
        if sources.fault(self):
            return
        source = sources.sources.get(self.path.partition("?")[0])
        if source is None:
            self.answer(404)
            return
        self._send(source)

    do_HEAD = do_GET

    def _send(self, source: Source) -> None:
        status, first, last, size = 200, 0, len(source.data) - 1, len(source.data)
        headers: dict[str, str | None] = {"ETag": source.etag or None, "Last-Modified": source.modified or None}
        wanted = _RANGE.fullmatch(self.headers.get("Range", ""))
        if wanted is not None and source.ranges:
            status, first, last = 206, int(wanted[1]), min(int(wanted[2]), size - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
            if first >= size:
                status, last, headers["Content-Range"] = 416, first - 1, f"bytes */{size}"
        body = memoryview(source.data)[first : last + 1]
        headers["Content-Length"] = None if source.chunked else str(len(body))
        headers["Transfer-Encoding"] = "chunked" if source.chunked else None
        self.send_response(status)
        for name, value in (headers | self.changes).items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self._body(body[: self.cut_at], source.chunked)
        if self.cut_at is not None:
            self.close_connection = True

    def _body(self, body: memoryview, chunked: bool) -> None:
        if not chunked:
            self.wfile.write(body)
            return
        for at in range(0, len(body), 50_000):
            piece = bytes(body[at : at + 50_000])
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        if self.cut_at is None:
            self.wfile.write(b"0\r\n\r\n")

    def answer(self, status: int, **headers: str) -> bool:
        """A fault's own answer, without a body."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return True

    def redirect(self, url: str, status: int = 302) -> bool:
        """Send the client elsewhere."""
        return self.answer(status, Location=url)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that leave are what tests are about."""


@contextmanager
def sources(
    context: ssl.SSLContext | None = None, host: str = "127.0.0.1", *, keep_alive: bool = True
) -> Iterator[Sources]:
    """A server on a port of its own."""

    class Here(Asked):
        protocol_version = "HTTP/1.1" if keep_alive else "HTTP/1.0"

    class Server(_Server):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    with Server((host, 0), Here) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        shown = f"[{host}]" if ":" in host else host
        found = Here.server_of = Sources(server.server_address[1], "https" if context else "http", host=shown)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
