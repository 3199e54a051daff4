"""Whole transfers with things that happen in the middle of them, every byte compared with the source."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from tests.harness.http import Address, Answer, Client
from tests.harness.patterns import difference
from tests.harness.waiting import PATIENCE_S

T = TypeVar("T")

PIECE_BYTES = 256 * 1024
# {offset in the body: what happens when the transfer gets there}
Moments = Mapping[int, Callable[[], object]]


class BrokenOff(Exception):
    """The body ended before its promised length, after `received` bytes that were right."""

    def __init__(self, received: int) -> None:
        super().__init__(f"broken off after {received} bytes")
        self.received = received


def pieces(source: memoryview, moments: Moments | None = None) -> Iterator[memoryview]:
    """`source` in pieces; what is to happen at an offset happens before the piece that holds it."""
    waiting = sorted((moments or {}).items())
    for at in range(0, len(source), PIECE_BYTES):
        while waiting and waiting[0][0] < at + PIECE_BYTES:
            waiting.pop(0)[1]()
        yield source[at : at + PIECE_BYTES]


def read_compared(response: http.client.HTTPResponse, source: memoryview, moments: Moments | None = None) -> None:
    """Read a body that should be `source`. Raises BrokenOff; AssertionError for a byte that is not the source's."""
    assert response.length == len(source), response.getheaders()
    buffer = memoryview(bytearray(PIECE_BYTES))
    at = 0
    for expected in pieces(source, moments):
        found = buffer[: _fill(response, buffer[: len(expected)])]
        assert difference(found, expected[: len(found)], at) is None
        at += len(found)
        if len(found) < len(expected):
            raise BrokenOff(at)


def _fill(response: http.client.HTTPResponse, room: memoryview) -> int:
    """Read until `room` is full or the connection ends; the number of bytes."""
    at = 0
    try:
        while at < len(room) and (count := response.readinto(room[at:])):
            at += count
    except ConnectionError:
        pass
    return at


def download(address: Address, target: str, source: memoryview, moments: Moments | None = None) -> None:
    """GET an image that must be `source`. Raises BrokenOff."""
    with Client(address) as client:
        response = client.begin("GET", target)
        assert response.status == 200, response.read()
        read_compared(response, source, moments)


def upload(address: Address, target: str, source: memoryview, moments: Moments | None = None, **headers: str) -> Answer:
    """PUT `source`; the answer, also one that came before the body was whole. Raises ConnectionError without any."""
    with Client(address) as client:
        sent = {"Content-Length": str(len(source))} | {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            client.request("PUT", target, pieces(source, moments), sent)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server stopped listening; perhaps it said why
        return client.read_answer(client.getresponse())


class Doing(Generic[T]):
    """Something done in a thread, while the test does something else; `result` waits for it."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._results.append(self._work())
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised again where the result is asked
            self._error = error

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return not self._thread.is_alive()

    def result(self, patience_s: float = PATIENCE_S * 2) -> T:
        """What the work returned; raises what it raised."""
        self._thread.join(patience_s)
        assert self.done, "still not done"
        if self._error is not None:
            raise self._error
        return self._results[0]
