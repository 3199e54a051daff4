"""Connections: keep-alive, pipelining, HTTP/1.0, Expect, and bodies that nobody takes."""

from __future__ import annotations

import json

import pytest

from tests.contract.house import DATA_BYTES, KIB, MIB, SCRATCH_BYTES, House, data, scratch
from tests.contract.wire import Row, Wire, request
from tests.harness.http import Address
from tests.harness.patterns import pattern

pytestmark = pytest.mark.nbd

TARGET = "/images/scratch"
SMUGGLED = request("PUT", f"{TARGET}?flush=n", b"smuggled")
# A body that is a request itself, again and again.
SMALL_BODY = SMUGGLED * 100
LARGE_BODY = SMUGGLED * (2 * MIB // len(SMUGGLED))


def old(target: str, *headers: str, method: str = "GET") -> bytes:
    """A request of HTTP/1.0."""
    return "\r\n".join([f"{method} {target} HTTP/1.0", *headers, "", ""]).encode()


def waiting(method: str, target: str, **headers: str) -> bytes:
    """The head of a request whose client waits with the body until it is asked for it."""
    return request(method, target, Content_Length=9, Expect="100-continue", **headers)


ROWS = [
    Row("Connection: close", request("GET", "/images/data", Connection="close"), 200, {}, data(), closes=True),
    Row("Connection: Close", request("GET", "/healthz", Connection="Close"), 200, closes=True),
    Row("an error and Connection: close", request("GET", "/images/nobody", Connection="close"), 404, closes=True),
    Row("HTTP/1.0", old("/images/data", "Range: bytes=0-99999"), 206, {}, data(0, 100_000), closes=True),
    Row("HTTP/1.0 and keep-alive", old("/images/data", "Connection: keep-alive"), 200, {}, data()),
    Row(
        "HTTP/1.0 knows no chunks",
        old("/images/data/extents", "Connection: keep-alive"),
        200,
        {"Transfer-Encoding": None},
        [{"start": 0, "length": DATA_BYTES, "zero": False, "hole": False}],
        closes=True,
    ),
    Row("HTTP/2", b"GET /healthz HTTP/2.0\r\n\r\n", 400, closes=True),
    Row("HTTP/0.9", b"GET /healthz\r\n\r\n", 400, closes=True),
    Row("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, closes=True),
    Row("a header without a colon", b"GET /healthz HTTP/1.1\r\nHost mover\r\n\r\n", 400, closes=True),
    Row("a header without a name", b"GET /healthz HTTP/1.1\r\n: mover\r\n\r\n", 400, closes=True),
    Row("a head of 8 KiB", request("GET", "/healthz", X="x" * 8000), 200),
    Row("a larger head", request("GET", "/healthz", X="x" * 9000), 431, closes=True),
    Row("a larger head, not of the library's", request("GET", "/v1x", X="x" * 9000), 431, closes=True),
    Row("a head of 1 MiB", request("GET", "/healthz", X="x" * MIB), 431, closes=True),
    Row("a long target", request("GET", "/" + "x" * 9000), 431, closes=True),
    Row("no Host", b"GET /healthz HTTP/1.1\r\n\r\n", 200),
    *(
        Row(f"{method} {path} drops a small body", request(method, path, SMALL_BODY), 200)
        for method, path in (
            ("GET", "/images/data"), ("HEAD", "/images/data"), ("OPTIONS", "/images/data"), ("OPTIONS", "/images/*"),
            ("GET", "/images/data/extents"), ("GET", "/healthz"), ("GET", "/info/"),
            ("POST", f"{TARGET}/flush"),
        )
    ),
    *(
        Row(f"{method} {path} drops a large body and closes", request(method, path, LARGE_BODY), 200, closes=True)
        for method, path in (
            ("GET", "/images/empty"), ("HEAD", "/images/data"), ("OPTIONS", "/images/data"), ("OPTIONS", "/images/*"),
            ("GET", "/images/data/extents"), ("GET", "/healthz"), ("GET", "/info/"),
            ("POST", f"{TARGET}/flush"),
        )
    ),
    Row(
        "a large read drops a large body",
        request("GET", "/images/data", LARGE_BODY, Range="bytes=0-99999"),
        206,
        {},
        data(0, 100_000),
        closes=True,
    ),
    *(
        Row(f"GET {path} never asks for a body", waiting("GET", path), 200, closes=True)
        for path in ("/images/data", "/images/data/extents", "/healthz")
    ),
    *(
        Row(f"{says}, small body", request(method, target, SMALL_BODY, **headers), status)
        for says, method, target, headers, status in (
            ("an unknown image", "PUT", "/images/nobody", {}, 404),
            ("an invalid id", "PUT", "/images/%00", {}, 400),
            ("an unknown path", "PUT", "/nothing", {}, 404),
            ("an unknown method", "BREW", TARGET, {}, 405),
            ("a read-only export", "PUT", "/images/read-only", {}, 403),
            ("a read-only export to patch", "PATCH", "/images/read-only", {}, 403),
            ("a range that does not fit", "PUT", TARGET, {"Content-Range": f"bytes {SCRATCH_BYTES}-*/*"}, 416),
            ("a contradiction", "PUT", TARGET, {"Content-Range": "bytes 0-1/*"}, 400),
            ("Range with PUT", "PUT", TARGET, {"Range": "bytes=0-1"}, 400),
            ("bad JSON", "PATCH", TARGET, {}, 400),
            ("another type", "PATCH", TARGET, {"Content-Type": "text/plain"}, 415),
            ("an export that is gone", "PUT", "/images/gone", {}, 502),
        )
    ),
    *(
        Row(f"{says}, large body", request(method, target, LARGE_BODY, **headers), status, closes=True)
        for says, method, target, headers, status in (
            ("an unknown image", "PUT", "/images/nobody", {}, 404),
            ("an unknown path", "PUT", "/nothing", {}, 404),
            ("an unknown method", "BREW", TARGET, {}, 405),
            ("a read-only export", "PUT", "/images/read-only", {}, 403),
            ("a range that does not fit", "PUT", TARGET, {"Content-Range": f"bytes {SCRATCH_BYTES}-*/*"}, 416),
            ("bad JSON", "PATCH", TARGET, {}, 400),
        )
    ),
    *(
        Row(f"{says} is refused without 100", waiting(method, target, **headers), status, closes=True)
        for says, method, target, headers, status in (
            ("an unknown image", "PUT", "/images/nobody", {}, 404),
            ("a read-only export", "PUT", "/images/read-only", {}, 403),
            ("a read-only export to patch", "PATCH", "/images/read-only", {}, 403),
            ("a range that does not fit", "PUT", TARGET, {"Content-Range": f"bytes {SCRATCH_BYTES}-*/*"}, 416),
            ("a word for flush", "PUT", f"{TARGET}?flush=perhaps", {}, 400),
            ("a server without flush", "PUT", "/images/no-flush", {}, 501),
            ("data for another range", "PATCH", TARGET, {"Range": "bytes=0-99"}, 400),
            ("another type", "PATCH", TARGET, {"Content-Type": "text/plain"}, 415),
            ("an unknown path", "PUT", "/nothing", {}, 404),
            ("an unknown method", "BREW", TARGET, {}, 405),
        )
    ),
    Row("no body and Expect", request("PUT", TARGET, b"", Expect="100-continue"), 200),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_connection_row(row: Row, house: House, address: Address) -> None:
    """Every request gets one answer, no body is taken for a request, and the connection does what it says."""
    house.renew()
    row.check(address)
    assert house.written(0, len(SMUGGLED)) == scratch(0, len(SMUGGLED))


@pytest.mark.parametrize(
    ("method", "headers", "body"),
    [
        ("PUT", {}, pattern(5, 0, 100_000)),
        ("PUT", {"Content-Range": "bytes 0-*/*"}, pattern(6, 0, MIB)),
        ("PUT", {"Expect": "100-Continue"}, b"x"),
        ("PATCH", {"Range": "bytes=0-9"}, b"0123456789"),
        ("PATCH", {}, b'{"op": "zero", "size": 10}'),
    ],
)
def test_a_body_is_asked_for_once(
    method: str, headers: dict[str, str], body: bytes, house: House, address: Address
) -> None:
    """A client that waits with its body gets 100 Continue when it is admitted, and then the answer."""
    house.renew()
    with Wire(address) as wire:
        waits: dict[str, str | int] = {"Expect": "100-continue", "Content-Length": len(body), **headers}
        wire.send(request(method, TARGET, None, **waits))
        assert wire.interim() == 100
        wire.send(body)
        answer = wire.answer()
        assert (answer.status, answer.interim) == (200, ())
        assert wire.goes_on()
    expected = bytes(10) if body.startswith(b"{") else body
    assert house.written(0, len(expected)) == expected


def test_a_refusal_is_readable_while_the_body_still_comes(address: Address) -> None:
    """A client that was promised nothing and goes on sending can read why, and is then closed."""
    with Wire(address) as wire:
        wire.send(request("PUT", TARGET, Content_Length=10**15))
        wire.send(bytes(256 * KIB))
        answer = wire.answer()
        assert (answer.status, answer.headers["connection"]) == (416, "close")
        assert wire.rest() == b""


def test_a_small_body_that_does_not_come_is_not_waited_for(address: Address) -> None:
    """The refusal of a request whose body is late is answered nevertheless, and the connection closed."""
    Row("", request("PUT", "/images/nobody", Content_Length=9), 404, closes=True).check(address)


def test_what_follows_a_refused_body_is_the_next_request(house: House, address: Address) -> None:
    """Refusals with bodies, each followed at once by a good request, are answered one by one and in order."""
    house.renew()
    refused = request("PUT", "/images/nobody", SMALL_BODY)
    with Wire(address) as wire:
        for number in range(20):
            wire.send(refused + request("GET", TARGET, Range=f"bytes={number}-{number + 9}"))
            assert wire.answer().status == 404
            assert wire.answer().body == scratch(number, 10)
        assert wire.goes_on()


def test_hundreds_of_requests_on_one_connection(house: House, address: Address) -> None:
    """A connection is kept through reads, writes, refusals and everything else, six hundred times."""
    house.renew()
    zero = json.dumps({"op": "zero", "offset": SCRATCH_BYTES - 10, "size": 10}).encode()
    with Wire(address) as wire:
        for number in range(100):
            at = number * 1000
            asked = [
                (request("GET", TARGET, Range=f"bytes={at}-{at + 99}"), 206),
                (request("HEAD", TARGET), 200),
                (request("PUT", f"{TARGET}?flush=n", b"x" * number, Content_Range=f"bytes {2 * MIB}-*/*"), 200),
                (request("PATCH", TARGET, zero), 200),
                (request("GET", TARGET, Range="bytes=9-8"), 416),
                (request("OPTIONS", TARGET), 200),
            ]
            assert [wire.ask(sent).status for sent, _ in asked] == [status for _, status in asked]


def test_pipelined_reads_come_in_order(address: Address) -> None:
    """Small and large bodies, heads and refusals, asked for all at once, come in order and to the byte."""
    spans = [(number * 7919, (1, 100, 65536, 65537, 700_000, 0)[number % 6]) for number in range(60)]
    with Wire(address) as wire:
        wire.send(
            b"".join(
                request("GET", "/images/data", Range=f"bytes={start}-{start + length - 1}")
                + request("HEAD" if start % 2 else "GET", "/images/nobody")
                for start, length in spans
            )
        )
        for start, length in spans:
            answer = wire.answer()
            if length:
                assert (answer.status, answer.body) == (206, data(start, length))
            else:
                assert answer.status == 416
            assert wire.answer("HEAD" if start % 2 else "GET").status == 404
        assert wire.goes_on()


def test_pipelined_writes_and_reads_see_each_other(house: House, address: Address) -> None:
    """A read that was sent after a write, without waiting for its answer, reads what was written."""
    house.renew()
    zero = json.dumps({"op": "zero", "offset": 5000, "size": 100}).encode()
    bodies = [pattern(11, number, length) for number, length in enumerate((1, 5000, 70_000, 600_000))]
    with Wire(address) as wire:
        for body in bodies:
            read = request("GET", TARGET, Range=f"bytes=5000-{5000 + len(body) - 1}")
            write = request("PUT", f"{TARGET}?flush=n", body, Content_Range="bytes 5000-*/*")
            wire.send(write + read + request("PATCH", TARGET, zero) + read)
            assert wire.answer().json()["bytes_written"] == len(body)
            assert wire.answer().body == body
            assert wire.answer().json()["bytes_written"] == 100
            assert wire.answer().body == bytes(min(100, len(body))) + body[100:]
        assert wire.goes_on()


def test_a_request_that_comes_in_single_bytes(house: House, address: Address) -> None:
    """Where the packets end makes no difference."""
    house.renew()
    sent = request("PUT", f"{TARGET}?flush=n", b"0123456789") + request("GET", TARGET, Range="bytes=0-9")
    with Wire(address) as wire:
        for at in range(len(sent)):
            wire.send(sent[at : at + 1])
        assert wire.answer().status == 200
        assert wire.answer().body == b"0123456789"
        assert wire.goes_on()
