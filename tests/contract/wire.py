"""HTTP as it stands on the wire: exact bytes out, parsed answers in, and rows that say what must come back."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.harness.http import Address, connect

READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Answer:
    """A whole answer. The names of `headers` are in lower case; `interim` are the statuses of 1xx before it."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    interim: tuple[int, ...] = ()

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The sentence of an error."""
        return str(self.json()["error"])


class Wire:
    """One connection; a context manager."""

    def __init__(self, address: Address) -> None:
        self._socket = connect(address)
        self._received = bytearray()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send these bytes."""
        self._socket.sendall(data)

    def finish(self) -> None:
        """Send no more: the server reads to the end of the stream."""
        self._socket.shutdown(socket.SHUT_WR)

    def ask(self, request: bytes) -> Answer:
        """Send a request and read its answer."""
        self.send(request)
        return self.answer(request.partition(b" ")[0].decode("latin-1"))

    def answer(self, method: str = "GET") -> Answer:
        """The next answer, to a request with `method`. Raises ConnectionError when it is not whole."""
        interim = []
        while (head := self._head())[0] // 100 == 1:
            interim.append(head[0])
        status, headers = head
        body = b"" if method == "HEAD" else self._body(headers)
        return Answer(status, headers, body, tuple(interim))

    def interim(self) -> int:
        """The status of the next 1xx answer; it is one."""
        status, headers = self._head()
        assert status // 100 == 1, f"{status} instead of 1xx"
        assert not headers
        return status

    def goes_on(self) -> bool:
        """Whether the next request is answered as itself, which it is not if bytes were left over before it."""
        answer = self.ask(request("GET", "/healthz"))
        return answer.status == 200 and answer.json() == {"status": "ok"}

    def rest(self) -> bytes:
        """All that comes until the server closes the connection; that may be a reset."""
        try:
            while self._receive():
                pass
        except ConnectionResetError:
            pass
        rest, self._received = bytes(self._received), bytearray()
        return rest

    # -- parsing ---------------------------------------------------------------------------------------------

    def _head(self) -> tuple[int, dict[str, str]]:
        lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, status, _ = lines[0].split(" ", 2)
        assert version == "HTTP/1.1"
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(": ")
            assert colon, f"{line!r} is no header"
            assert name.lower() not in headers, f"{name} stands twice"
            headers[name.lower()] = value
        return int(status), headers

    def _body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            assert "content-length" not in headers
            return self._chunks()
        if "content-length" in headers:
            return self._exactly(int(headers["content-length"]))
        assert headers["connection"] == "close"
        return self.rest()

    def _chunks(self) -> bytes:
        body = bytearray()
        while size := int(self._until(b"\r\n"), 16):
            body += self._exactly(size)
            assert self._exactly(2) == b"\r\n"
        assert self._exactly(2) == b"\r\n"
        return bytes(body)

    def _until(self, mark: bytes) -> bytes:
        while (at := self._received.find(mark)) < 0:
            self._receive_more()
        found = bytes(self._received[:at])
        del self._received[: at + len(mark)]
        return found

    def _exactly(self, count: int) -> bytes:
        while len(self._received) < count:
            self._receive_more()
        found = bytes(self._received[:count])
        del self._received[:count]
        return found

    def _receive_more(self) -> None:
        if not self._receive():
            raise ConnectionError(f"closed within an answer, after {bytes(self._received[:200])!r}")

    def _receive(self) -> int:
        data = self._socket.recv(READ_BYTES)
        self._received += data
        return len(data)


def request(method: str, target: str, body: bytes | None = None, /, **headers: str | int) -> bytes:
    """A request's bytes. A body brings its Content-Length unless `headers` (with `_` for `-`) have one."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None and "Content-Length" not in named and "Transfer-Encoding" not in named:
        named["Content-Length"] = len(body)
    lines = [f"{method} {target} HTTP/1.1", "Host: mover", *(f"{name}: {value}" for name, value in named.items())]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


@dataclass(frozen=True)
class Row:
    """One line of a contract's table: what must hold, the request, and the answer.

    A header that is None must not come. `body` is the bytes that must come, or the parsed JSON; `error` is a part of
    an error's sentence. `closes` says that the server closes the connection after the answer; otherwise it goes on.
    """

    says: str
    request: bytes
    status: int
    headers: Mapping[str, str | None] = field(default_factory=dict)
    body: bytes | list[Any] | dict[str, Any] | None = None
    error: str = ""
    closes: bool = False
    interim: tuple[int, ...] = ()

    def __str__(self) -> str:
        return self.says.replace(" ", "-")

    def check(self, address: Address) -> Answer:
        """Ask on a connection of its own, and compare everything. The answer."""
        with Wire(address) as wire:
            answer = wire.ask(self.request)
            self._compare(answer)
            if self.closes:
                assert answer.headers["connection"] == "close"
                assert wire.rest() == b"", "the request was answered twice"
            else:
                assert answer.headers["connection"] == "keep-alive"
                assert wire.goes_on()
        return answer

    def _compare(self, answer: Answer) -> None:
        assert answer.status == self.status, answer
        assert answer.interim == self.interim
        found = {name: answer.headers.get(name.lower()) for name in self.headers}
        assert found == self.headers
        if self.status >= 400 and not self.request.startswith(b"HEAD"):
            assert answer.headers["content-type"] == "application/json"
            assert self.error in answer.error
        if isinstance(self.body, bytes):
            assert answer.body == self.body
        elif self.body is not None:
            assert answer.headers["content-type"] == "application/json"
            assert answer.json() == self.body
