"""Servers that speak S3, for tests: moto, a double of it in a process of its own, and what may go wrong before it."""

from __future__ import annotations

import http.client
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from config.store_settings import S3Store
from workers.store.objects.asking import ask
from workers.store.objects.credentials import Credentials
from workers.store.objects.s3_multipart import signed

KEY, SECRET = "AKIAMOVERTEST", "its-secret-is-never-shown"
BUCKET = "images"
MOTO = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address=sys.argv[1], port=0, verbose=False)
server.start()
print(server._server.server_port, flush=True)
sys.stdin.read()
"""


@dataclass
class S3Server:
    """A server with an empty bucket."""

    endpoint: str
    room: Path
    key: str = KEY
    secret: str = SECRET
    # The port of Swift's memcached; 0 of others.
    memcached: int = 0

    def credentials(self, secret: str | None = None) -> Path:
        """A file of them."""
        path = self.room / f"credentials-{secret or 'right'}"
        path.write_text(f"[default]\naws_access_key_id = {self.key}\naws_secret_access_key = {secret or self.secret}\n")
        return path

    def store(self, **settings: Any) -> S3Store:
        """Settings of a store in the bucket."""
        given = {"endpoint": self.endpoint, "credentials_file": str(self.credentials()), **settings}
        return S3Store(id="s3", bucket=BUCKET, **given)

    def ask(self, method: str, name: str = "", query: dict[str, str] | None = None) -> bytes:
        """A signed request, without OpenDAL, which keeps connections open in the test's process."""
        known = Credentials({"aws_access_key_id": self.key, "aws_secret_access_key": self.secret})
        status, _, answer = ask(signed(self.store(), known, method, name, query or {}))
        assert status < http.client.MULTIPLE_CHOICES, (status, answer)
        return answer

    def names(self) -> list[str]:
        """All objects."""
        return sorted(name.decode() for name in re.findall(rb"<Key>(.*?)</Key>", self.ask("GET")))

    def unfinished(self) -> int:
        """Multipart uploads that were begun and neither completed nor ended."""
        return self.ask("GET", "", {"uploads": ""}).count(b"<UploadId>")

    def clear(self) -> None:
        """Remove all objects."""
        for name in self.names():
            self.ask("DELETE", name)


@contextmanager
def moto(room: Path, address: str = "127.0.0.1") -> Iterator[S3Server]:
    """A double: it keeps objects in memory and checks no signature."""
    command = [sys.executable, "-c", MOTO, address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline())
            connection = http.client.HTTPConnection(address, port)
            connection.request("PUT", f"/{BUCKET}", headers={"Content-Length": "0"})
            assert connection.getresponse().status == http.client.OK
            connection.close()
            yield S3Server(f"http://{address}:{port}", room)
        finally:
            process.kill()


Fault = Callable[["Passing"], bool]
"""Whether the request has been answered by the fault; else it goes on to the server."""


@dataclass
class Trouble:
    """A proxy before a server; `fault` looks at each request, `passed` has the lines of those that it let through."""

    endpoint: str
    fault: Fault = lambda passing: False
    passed: list[str] = field(default_factory=list)


class Passing(BaseHTTPRequestHandler):
    """One request on its way."""

    protocol_version = "HTTP/1.1"
    behind = ""
    trouble: Trouble
    cut_at: int | None

    def handle_one(self) -> None:
        """Pass it on, unless the fault has answered."""
        self.cut_at = None
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.trouble.fault(self):
            return
        self.trouble.passed.append(self.requestline)
        connection = http.client.HTTPConnection(self.behind)
        connection.request(self.command, self.path, body, dict(self.headers.items()))
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "server", "date"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: self.cut_at])
        if self.cut_at is not None:
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_one

    def answer(self, status: int, code: str) -> bool:
        """The fault's own answer."""
        data = f"<Error><Code>{code}</Code><Message>so the test wants it</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        return True

    def handle(self) -> None:
        """A client that has gone is no trouble of the test's."""
        with suppress(ConnectionError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""


@contextmanager
def trouble_before(server: S3Server, keep_alive: bool = True) -> Iterator[Trouble]:
    """A proxy that a test gives its faults."""

    class Here(Passing):
        protocol_version = "HTTP/1.1" if keep_alive else "HTTP/1.0"
        behind = server.endpoint.partition("//")[2]

    with ThreadingHTTPServer(("127.0.0.1", 0), Here) as proxy:
        trouble = Here.trouble = Trouble(f"http://127.0.0.1:{proxy.server_address[1]}")
        proxy.daemon_threads = True
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        try:
            yield trouble
        finally:
            proxy.shutdown()
            thread.join()
