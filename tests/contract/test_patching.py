"""PATCH (zero, flush, write) and POST flush."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contract.house import HUGE_BYTES, KIB, MIB, NO_FLUSH_BYTES, SCRATCH_BYTES, House, scratch
from tests.contract.wire import Row, request
from tests.harness.http import Address

pytestmark = pytest.mark.nbd

SIZE = SCRATCH_BYTES
TARGET = "/images/scratch"
READING = "GET, HEAD, OPTIONS"
IMAGE = {"Accept-Ranges": "bytes", "Access-Control-Allow-Methods": "GET, HEAD, PUT, PATCH, POST, OPTIONS"}
JSON_MOST_BYTES = 64 * KIB

Change = tuple[int, bytes]
Case = tuple[Row, Change | None]


def patch(body: bytes | dict[str, Any], target: str = TARGET, **headers: str) -> bytes:
    """A PATCH request's bytes."""
    return request("PATCH", target, body if isinstance(body, bytes) else json.dumps(body).encode(), **headers)


def done(count: int, flushed: bool) -> dict[str, Any]:
    """The answer to a write."""
    return {"ok": True, "bytes_written": count, "flushed": flushed}


def zeroed(says: str, at: int, size: int, /, flushed: bool = False, **fields: Any) -> Case:
    """A zero that is done."""
    row = Row(says, patch({"op": "zero", "size": size, **fields}), 200, IMAGE, done(size, flushed))
    return row, (at, bytes(size))


def wrote(says: str, value: str, offset: int, body: bytes, **headers: str) -> Case:
    """A PATCH with Range that is done; it flushes only when asked to."""
    return Row(says, patch(body, Range=value, **headers), 200, IMAGE, done(len(body), False)), (offset, body)


def refused(
    says: str, body: bytes | dict[str, Any], error: str = "", status: int = 400, asked: bool = True, **headers: str
) -> Case:
    """A PATCH that is refused, after the export was `asked`; the connection goes on."""
    bounds = {"Content-Range": f"bytes */{SIZE}"} if status == 416 else {}
    bounds |= IMAGE if asked else {}
    return Row(says, patch(body, **headers), status, bounds, error=error), None


def padded(length: int) -> bytes:
    """A zero of one byte as JSON of exactly `length` bytes."""
    return b'{"op": "zero", "size": 1}'.ljust(length)


def chunked(body: bytes) -> bytes:
    """A body as one chunk."""
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


TEN = b"0123456789"

CASES: list[Case] = [
    zeroed("zero from the beginning", 0, 4096),
    zeroed("zero at an offset", 8192, 65536, offset=8192),
    zeroed("zero without alignment", 4097, 8191, offset=4097),
    zeroed("zero of one byte", 511, 1, offset=511),
    zeroed("zero of the last byte", SIZE - 1, 1, offset=SIZE - 1),
    zeroed("zero of the whole image", 0, SIZE),
    zeroed("zero of nothing", 5, 0, offset=5),
    zeroed("zero with flush", 0, 10, flushed=True, flush=True),
    zeroed("zero without flush", 0, 10, flush=False),
    zeroed("keys that nobody knows are ignored", 0, 10, future=[1, 2]),
    (Row("without a Content-Type", patch({"op": "zero", "size": 3}), 200, IMAGE, done(3, False)), (0, bytes(3))),
    *(
        (
            Row(
                f"Content-Type {kind}", patch({"op": "zero", "size": 3}, Content_Type=kind), 200, IMAGE, done(3, False)
            ),
            (0, bytes(3)),
        )
        for kind in ("application/json", "application/json; charset=utf-8", "Application/JSON")
    ),
    (
        Row(
            "JSON by its Content-Type is never written as data",
            patch({"op": "zero", "size": 3}, Content_Type="application/json", Range="bytes=100-199"),
            200,
            IMAGE,
            done(3, False),
        ),
        (0, bytes(3)),
    ),
    (
        Row(
            "JSON in chunks",
            request("PATCH", TARGET, chunked(b'{"op": "zero", "size": 3}'), Transfer_Encoding="chunked"),
            200,
            IMAGE,
            done(3, False),
        ),
        (0, bytes(3)),
    ),
    (Row("JSON of 64 KiB", patch(padded(JSON_MOST_BYTES)), 200, IMAGE, done(1, False)), (0, bytes(1))),
    (Row("flush", patch({"op": "flush"}), 200, IMAGE, done(0, True)), None),
    (Row("POST flush", request("POST", f"{TARGET}/flush"), 200, IMAGE, done(0, True)), None),
    (Row("POST flush with an empty body", request("POST", f"{TARGET}/flush", b""), 200, IMAGE, done(0, True)), None),
    (Row("POST flush with a body", request("POST", f"{TARGET}/flush", b"{}"), 200, IMAGE, done(0, True)), None),
    refused("zero beyond the end", {"op": "zero", "offset": SIZE - 9, "size": 10}, "ends after the image", 416),
    refused("zero at the end", {"op": "zero", "offset": SIZE, "size": 1}, "ends after the image", 416),
    refused("zero of nothing after the end", {"op": "zero", "offset": SIZE + 1, "size": 0}, "after the image", 416),
    refused("zero of 2**63", {"op": "zero", "size": 2**63}, "ends after the image", 416),
    refused("zero that wraps round 2**64", {"op": "zero", "offset": 2**64 - 1, "size": 2}, "", 416),
    refused("zero without a size", {"op": "zero"}, "size"),
    refused("a size that is null", {"op": "zero", "size": None}, "size"),
    refused("a negative size", {"op": "zero", "size": -1}, "size"),
    refused("a negative offset", {"op": "zero", "offset": -1, "size": 1}, "offset"),
    refused("a size of more digits than Python reads", b'{"op": "zero", "size": %b}' % (b"9" * 5000)),
    refused("a size of 10**30", {"op": "zero", "size": 10**30}, "ends after the image", 416),
    refused("a size of 1e400", b'{"op": "zero", "size": 1e400}'),
    refused("a size of 1.5", {"op": "zero", "size": 1.5}, "size"),
    refused("a size of 1.0", {"op": "zero", "size": 1.0}, "size"),
    refused("a size that is true", {"op": "zero", "size": True}, "size"),
    refused("a size that is text", {"op": "zero", "size": "10"}, "size"),
    refused("an offset that is null", {"op": "zero", "size": 1, "offset": None}, "offset"),
    refused("a flush that is text", {"op": "zero", "size": 1, "flush": "y"}, "flush"),
    refused("a flush that is 1", {"op": "zero", "size": 1, "flush": 1}, "flush"),
    refused("no op", {"size": 1}, "op"),
    refused("an op that is null", {"op": None}, "op"),
    refused("an op that is a list", {"op": ["zero"]}, "op"),
    refused("another op", {"op": "trim", "size": 1}, "'trim' is not 'zero' or 'flush'"),
    refused("an op in capitals", {"op": "ZERO", "size": 1}, "'ZERO'"),
    refused("a list", b'[{"op": "flush"}]', "bad JSON"),
    refused("text", b'"flush"', "bad JSON"),
    refused("null", b"null", "bad JSON"),
    refused("nothing", b"", "bad JSON"),
    refused("half an object", b'{"op": "flush"', "bad JSON"),
    refused("two objects", b'{"op": "flush"}{"op": "flush"}', "bad JSON"),
    refused("no UTF-8", b'{"op": "flu\xffsh"}', "bad JSON"),
    refused("NaN", b'{"op": "zero", "size": NaN}', "bad JSON"),
    refused("deep nesting", b'{"op": "flush", "x": ' + b"[" * 30000 + b"]" * 30000 + b"}", "bad JSON"),
    refused("JSON of one byte more than 64 KiB", padded(JSON_MOST_BYTES + 1), "65536 bytes"),
    (
        Row(
            "JSON of more than 64 KiB in chunks",
            request("PATCH", TARGET, chunked(padded(JSON_MOST_BYTES + 1)), Transfer_Encoding="chunked"),
            400,
            error="65536 bytes",
            closes=True,
        ),
        None,
    ),
    (
        Row("JSON of 2 MiB", patch(padded(2 * MIB)), 400, error="65536 bytes", closes=True),
        None,
    ),
    refused("data without Range", TEN, "octet-stream", 415, asked=False, Content_Type="application/octet-stream"),
    refused("a form", TEN, "form", 415, asked=False, Content_Type="application/x-www-form-urlencoded"),
    wrote("data at a place", "bytes=5000-5009", 5000, TEN, Content_Type="application/octet-stream"),
    wrote("data without a Content-Type", "bytes=5000-5009", 5000, TEN),
    wrote("data at the end", f"bytes={SIZE - 10}-", SIZE - 10, TEN),
    wrote("data over slots' borders", "bytes=300001-900000", 300_001, bytes(range(250)) * 2400),
    (
        Row("data and flush=y", patch(TEN, f"{TARGET}?flush=y", Range="bytes=0-9"), 200, IMAGE, done(10, True)),
        (0, TEN),
    ),
    refused("data shorter than its range", TEN, "is not of Content-Length 10", Range="bytes=5000-5010"),
    refused("data longer than its range", TEN, "is not of Content-Length 10", Range="bytes=5000-5008"),
    refused("no data", b"", "must be positive", Range="bytes=5000-5009"),
    refused("data with two ranges", TEN, "one range", Range="bytes=0-4,10-14"),
    refused("data with junk for a range", TEN, "bytes=a-b", Range="junk"),
    refused("data after the end", TEN, "at or after the end", 416, Range=f"bytes={SIZE}-{SIZE + 9}"),
    refused("data beyond the end", TEN, "reaches out of the image", 416, Range=f"bytes={SIZE - 5}-{SIZE + 4}"),
    refused("data where its range is clamped", b"01234", "reaches out", 416, Range=f"bytes={SIZE - 5}-{SIZE + 4}"),
    refused("data for a suffix longer than the image", TEN, "reaches out", 416, Range=f"bytes=-{SIZE + 1}"),
    wrote("data for a suffix", "bytes=-10", SIZE - 10, TEN),
    (
        Row(
            "data in chunks",
            request(
                "PATCH", TARGET, chunked(TEN), Transfer_Encoding="chunked", Range="bytes=0-9"
            ),
            400,
            error="Content-Length required",
            closes=True,
        ),
        None,
    ),
    *(
        (
            Row(
                f"{says} on a read-only export",
                asked,
                403,
                {"Allow": READING, "Access-Control-Allow-Methods": READING},
                error="read-only",
            ),
            None,
        )
        for says, asked in (
            ("zero", patch({"op": "zero", "size": 1}, "/images/read-only")),
            ("flush", patch({"op": "flush"}, "/images/read-only")),
            ("data", patch(TEN, "/images/read-only", Range="bytes=0-9")),
            ("POST flush", request("POST", "/images/read-only/flush")),
            ("junk", patch(b"junk", "/images/read-only")),
        )
    ),
    *(
        (Row(f"{says} without the server's flush", asked, 501, error="cannot flush"), None)
        for says, asked in (
            ("flush", patch({"op": "flush"}, "/images/no-flush")),
            ("POST flush", request("POST", "/images/no-flush/flush")),
            ("zero and flush", patch({"op": "zero", "size": 1, "flush": True}, "/images/no-flush")),
            ("data and flush", patch(TEN, "/images/no-flush?flush=y", Range="bytes=0-9")),
        )
    ),
    (
        Row(
            "zero where the server has neither zero nor flush",
            patch({"op": "zero", "size": NO_FLUSH_BYTES}, "/images/no-flush"),
            200,
            {},
            done(NO_FLUSH_BYTES, False),
        ),
        None,
    ),
    (Row("PATCH of an unknown image", patch({"op": "flush"}, "/images/nobody"), 404, error="unknown image_id"), None),
    (Row("POST flush of an unknown image", request("POST", "/images/nobody/flush"), 404, error="unknown"), None),
]  # fmt: skip


@pytest.mark.parametrize(("row", "change"), CASES, ids=lambda part: str(part) if isinstance(part, Row) else "")
def test_patching_row(row: Row, change: Change | None, house: House, address: Address) -> None:
    """Every row of PATCH is answered as the contract says, and changes these bytes and no others."""
    house.renew()
    row.check(address)
    offset, body = change or (0, b"")
    expected = bytearray(scratch())
    expected[offset : offset + len(body)] = body
    assert house.written(0, SIZE) == expected


def test_zero_of_more_than_a_request_holds(address: Address) -> None:
    """Nine GiB are zeroed in one request of the client's, past every limit of 32 bits."""
    row = Row("", patch({"op": "zero", "size": HUGE_BYTES}, "/images/huge"), 200, {}, done(HUGE_BYTES, False))
    row.check(address)


def test_zero_without_the_server_s_help(house: House, address: Address) -> None:
    """Where the server has no WRITE_ZEROES, zeroing writes zeros, and only where it was asked to."""
    ask = house.mover.ask
    ones = b"\1" * MIB
    assert ask("PUT", "/images/no-zero", ones).status == 200
    row = Row(
        "", patch({"op": "zero", "offset": 1000, "size": 600_000}, "/images/no-zero"), 200, {}, done(600_000, False)
    )
    row.check(address)
    assert ask("GET", "/images/no-zero").body == ones[:1000] + bytes(600_000) + ones[601_000:]
