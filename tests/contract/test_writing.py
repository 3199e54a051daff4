"""PUT: whole, shorter, at a place that Content-Range gives; what is refused changes nothing."""

from __future__ import annotations

import pytest

from tests.contract.house import KIB, NO_FLUSH_BYTES, SCRATCH_BYTES, House, scratch
from tests.contract.wire import Row, Wire, request
from tests.harness.http import Address
from tests.harness.patterns import pattern

pytestmark = pytest.mark.nbd

SIZE = SCRATCH_BYTES
WRITING = "GET, HEAD, PUT, PATCH, POST, OPTIONS"
READING = "GET, HEAD, OPTIONS"
IMAGE = {"Accept-Ranges": "bytes", "Access-Control-Allow-Methods": WRITING}
TEN = b"0123456789"
TARGET = "/images/scratch"

Change = tuple[int, bytes]
"""Where the image is other than before, and what stands there."""
Case = tuple[Row, Change | None]


def written(says: str, offset: int, body: bytes, query: str = "", flushed: bool = True, **headers: str) -> Case:
    """A PUT that is done."""
    answer = {"ok": True, "bytes_written": len(body), "flushed": flushed}
    return Row(says, request("PUT", TARGET + query, body, **headers), 200, IMAGE, answer), (offset, body)


def placed(says: str, value: str, offset: int, body: bytes = TEN) -> Case:
    """A PUT with Content-Range that is done."""
    return written(says, offset, body, Content_Range=value)


def refused(says: str, status: int, error: str, body: bytes = TEN, query: str = "", **headers: str) -> Case:
    """A PUT that is refused; its body is small, so the connection goes on."""
    bounds = {"Content-Range": f"bytes */{SIZE}"} if status == 416 else {}
    return Row(says, request("PUT", TARGET + query, body, **headers), status, bounds, error=error), None


def broken(says: str, lines: str, error: str = "", status: int = 400) -> Case:
    """A PUT whose head is wrong, so that nobody knows where its body ends; the connection is closed."""
    head = f"PUT {TARGET} HTTP/1.1\r\nHost: mover\r\n{lines}\r\n\r\n"
    return Row(says, head.encode("latin-1") + TEN, status, error=error, closes=True), None


CASES = [
    written("the whole image", 0, pattern(9, 0, SIZE)),
    written("a body shorter than the image", 0, pattern(9, 0, SIZE - 1)),
    written("one byte", 0, b"x"),
    written("nothing", 0, b""),
    written("more than a slot and no multiple of one", 0, pattern(9, 0, 600_001)),
    written("zeros", 0, bytes(700_000)),
    written("any Content-Type", 0, TEN, Content_Type="text/html"),
    placed("a place in the middle", "bytes 5000-5009/*", 5000),
    placed("with the image's size", f"bytes 5000-5009/{SIZE}", 5000),
    placed("with another size", "bytes 5000-5009/99999", 5000),
    placed("without an end", "bytes 5000-*/*", 5000),
    placed("the last bytes", f"bytes {SIZE - 10}-{SIZE - 1}/{SIZE}", SIZE - 10),
    placed("a body over slots' borders", "bytes 500001-*/*", 500_001, pattern(9, 0, 1_100_000)),
    placed("zeros without alignment", "bytes 4097-*/*", 4097, bytes(8192)),
    placed("the unit in capitals", "BYTES 5000-5009/*", 5000),
    placed("no bytes at the end", f"bytes {SIZE}-*/*", SIZE, b""),
    *(written(f"flush={no}", 0, TEN, f"?flush={no}", flushed=False) for no in ("n", "no", "false", "0", "N", "False")),
    *(written(f"flush={yes}", 0, TEN, f"?flush={yes}") for yes in ("y", "yes", "true", "1", "Y", "TRUE")),
    refused("flush is no word of the contract", 400, "flush='maybe'", query="?flush=maybe"),
    refused("beyond the end by one byte", 416, "ends after the image", Content_Range=f"bytes {SIZE - 9}-{SIZE}/*"),
    refused("beyond the end altogether", 416, "ends after the image", Content_Range=f"bytes {SIZE + 5}-*/*"),
    refused("no bytes after the end", 416, "ends after the image", b"", Content_Range=f"bytes {SIZE + 1}-*/*"),
    refused("a start of many digits", 416, "ends after the image", Content_Range=f"bytes {'9' * 3000}-*/*"),
    refused("an end that contradicts the length", 400, "contradicts Content-Length 10", Content_Range="bytes 0-8/*"),
    refused("an end before the start", 400, "contradicts Content-Length", Content_Range="bytes 50-40/*"),
    refused("an end before the start of nothing", 400, "contradicts", b"", Content_Range="bytes 50-49/*"),
    refused("an end after the size given", 400, "ends after the size it gives", Content_Range="bytes 0-9/9"),
    refused("another unit", 400, "bytes a-b", Content_Range="blocks 0-9/*"),
    refused("no size at all", 400, "bytes a-b", Content_Range="bytes 0-9"),
    refused("no place", 400, "bytes a-b", Content_Range="bytes */*"),
    refused("the form of Range", 400, "bytes a-b", Content_Range="bytes=0-9"),
    refused("a negative place", 400, "bytes a-b", Content_Range="bytes -9-0/*"),
    refused("an empty Content-Range", 400, "bytes a-b", Content_Range=""),
    refused("Range", 400, "Content-Range, not Range", Range="bytes=0-9"),
    (
        Row(
            "two places",
            request("PUT", TARGET, TEN, Content_Range="bytes 0-9/*").replace(
                b"Content-Range", b"Content-Range: bytes 90-99/*\r\nContent-Range"
            ),
            400,
            error="bytes a-b",
        ),
        None,
    ),
    (Row("no Content-Length", request("PUT", TARGET), 400, error="Content-Length required"), None),
    (
        Row(
            "a chunked body",
            request("PUT", TARGET, b"a\r\n0123456789\r\n0\r\n\r\n", Transfer_Encoding="chunked"),
            400,
            error="Content-Length required",
            closes=True,
        ),
        None,
    ),
    (
        Row(
            "a body one byte longer than the image",
            request("PUT", TARGET, bytes(SIZE + 1)),
            416,
            {**IMAGE, "Content-Range": f"bytes */{SIZE}"},
            error=f"Content-Length {SIZE + 1} is larger than the image of {SIZE}",
            closes=True,
        ),
        None,
    ),
    (
        Row(
            "a small body longer than its image",
            request("PUT", "/images/no-flush?flush=n", bytes(NO_FLUSH_BYTES + 1)),
            416,
            {"Content-Range": f"bytes */{NO_FLUSH_BYTES}"},
            error="larger than the image",
        ),
        None,
    ),
    (
        Row(
            "a body of an exabyte",
            request("PUT", TARGET, TEN, Content_Length=10**18),
            416,
            error="larger than the image",
            closes=True,
        ),
        None,
    ),
    broken("a negative length", "Content-Length: -10"),
    broken("a length with a sign", "Content-Length: +10"),
    broken("a length with an underscore", "Content-Length: 1_0"),
    broken("a length that is no number", "Content-Length: ten"),
    broken("a length of more digits than Python reads", f"Content-Length: {'1' * 5000}"),
    broken("an empty length", "Content-Length:"),
    broken("a list of lengths", "Content-Length: 10, 10"),
    broken("two lengths", "Content-Length: 10\r\nContent-Length: 11"),
    broken("one length twice", "Content-Length: 10\r\nContent-Length: 10"),
    broken("a length in digits of another script", "Content-Length: \u0661\u0660".encode().decode("latin-1")),
    broken("a length and chunks", "Content-Length: 10\r\nTransfer-Encoding: chunked"),
    broken("another encoding of the body", "Transfer-Encoding: gzip"),
    broken("a blank before the colon", "Content-Length : 10"),
    broken("a header that goes on in the next line", "Content-Length: 1\r\n 0"),
    broken("a line that ends with LF only", "X: y\nContent-Length: 10"),
    broken("a CR within a line", "X: y\rContent-Length: 10"),
    broken("a NUL within a line", "X: y\0\r\nContent-Length: 10"),
    broken("an expectation that nobody knows", "Content-Length: 10\r\nExpect: tea", status=417),
    (
        Row(
            "a read-only export",
            request("PUT", "/images/read-only", TEN),
            403,
            {"Allow": READING, "Access-Control-Allow-Methods": READING},
            error="read-only",
        ),
        None,
    ),
    (
        Row("a server without flush", request("PUT", "/images/no-flush", TEN), 501, error="cannot flush"),
        None,
    ),
    (
        Row(
            "a server without flush and flush=n",
            request("PUT", "/images/no-flush?flush=n", TEN),
            200,
            body={"ok": True, "bytes_written": 10, "flushed": False},
        ),
        None,
    ),
    (Row("an unknown image", request("PUT", "/images/nobody", TEN), 404, body={"error": "unknown image_id"}), None),
]


@pytest.mark.parametrize(("row", "change"), CASES, ids=lambda part: str(part) if isinstance(part, Row) else "")
def test_writing_row(row: Row, change: Change | None, house: House, address: Address) -> None:
    """Every row of PUT is answered as the contract says, and writes these bytes and no others."""
    house.renew()
    row.check(address)
    offset, body = change or (0, b"")
    before, after = scratch(), house.written(0, SIZE)
    assert after[offset : offset + len(body)] == body
    assert after[:offset] == before[:offset]
    assert after[offset + len(body) :] == before[offset + len(body) :]


def test_what_was_put_is_what_is_got(house: House, address: Address) -> None:
    """On one connection, each of many small writes is there for the next read."""
    house.renew()
    with Wire(address) as wire:
        for number in range(64):
            at, body = number * 40_961, pattern(7, number, 1 + number * 13)
            put = wire.ask(request("PUT", f"{TARGET}?flush=n", body, Content_Range=f"bytes {at}-*/*"))
            assert put.json() == {"ok": True, "bytes_written": len(body), "flushed": False}
            assert wire.ask(request("GET", TARGET, Range=f"bytes={at}-{at + len(body) - 1}")).body == body


def test_a_body_that_ends_early_ends_the_connection(house: House, address: Address) -> None:
    """A client that promises more than it sends gets no success, and the server goes on for others."""
    house.renew()
    with Wire(address) as wire:
        wire.send(request("PUT", TARGET, bytes(100 * KIB), Content_Length=200 * KIB))
        wire.finish()
        assert b"200 OK" not in wire.rest()
    with Wire(address) as wire:
        assert wire.goes_on()
