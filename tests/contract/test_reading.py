"""GET and HEAD of an image, whole and by ranges."""

from __future__ import annotations

import pytest

from tests.contract.house import DATA_BYTES, SCRATCH_BYTES, House, data, scratch
from tests.contract.wire import Row, Wire, request
from tests.harness.http import Address
from tests.harness.patterns import pattern

pytestmark = pytest.mark.nbd

LAST = DATA_BYTES - 1
GET_METHODS = "GET, HEAD, PUT, PATCH, POST, OPTIONS"
IMAGE = {
    "Accept-Ranges": "bytes",
    "Access-Control-Allow-Methods": GET_METHODS,
    "Access-Control-Allow-Origin": "https://appliance.example",
}
BODY = {**IMAGE, "Content-Type": "application/octet-stream", "Content-Disposition": "attachment"}


def ranged(says: str, value: str, offset: int, length: int) -> Row:
    """A range that is answered."""
    headers = {
        **BODY,
        "Content-Length": str(length),
        "Content-Range": f"bytes {offset}-{offset + length - 1}/{DATA_BYTES}",
    }
    return Row(says, request("GET", "/images/data", Range=value), 206, headers, data(offset, length))


def unsatisfied(says: str, value: str, error: str, image: str = "data", size: int = DATA_BYTES) -> Row:
    """A range that is refused."""
    headers = {**IMAGE, "Content-Range": f"bytes */{size}"}
    return Row(says, request("GET", f"/images/{image}", Range=value), 416, headers, error=error)


ROWS = [
    Row("the whole image", request("GET", "/images/data"), 200, {**BODY, "Content-Length": str(DATA_BYTES)}, data()),
    Row("an export over TCP", request("GET", "/images/tcp"), 200, {"Content-Length": str(DATA_BYTES)}, data()),
    Row("an export's name", request("GET", "/images/named", Range="bytes=4090-4100"), 206, {}, pattern(3, 4090, 11)),
    Row("a slash at the end", request("GET", "/images/data/", Range="bytes=1-2"), 206, {}, data(1, 2)),
    Row("qemu's older form of URL", request("GET", "/images/old-form"), 200, {}, data()),
    Row(
        "HEAD has the headers and not the body",
        request("HEAD", "/images/data"),
        200,
        {**BODY, "Content-Length": str(DATA_BYTES)},
        b"",
    ),
    Row(
        "HEAD of a range",
        request("HEAD", "/images/data", Range="bytes=10-19"),
        206,
        {**BODY, "Content-Length": "10", "Content-Range": f"bytes 10-19/{DATA_BYTES}"},
        b"",
    ),
    ranged("the first byte", "bytes=0-0", 0, 1),
    ranged("the last byte", f"bytes={LAST}-{LAST}", LAST, 1),
    ranged("the last byte as a suffix", "bytes=-1", LAST, 1),
    ranged("a range without alignment", "bytes=4095-8193", 4095, 4099),
    ranged("a range over a slot's border", "bytes=524287-524288", 524287, 2),
    ranged("a small body's most bytes", "bytes=7-65542", 7, 65536),
    ranged("one byte more than a small body", "bytes=7-65543", 7, 65537),
    ranged("a range to the end", "bytes=2097000-", 2097000, DATA_BYTES - 2097000),
    ranged("all of it as a range", "bytes=0-", 0, DATA_BYTES),
    ranged("an end after the image is clamped", f"bytes={LAST - 9}-{10**15}", LAST - 9, 10),
    ranged("a suffix", "bytes=-500000", DATA_BYTES - 500000, 500000),
    ranged("a suffix longer than the image is the whole image", f"bytes=-{10**15}", 0, DATA_BYTES),
    ranged("a suffix of more digits than any number has", "bytes=-" + "9" * 3000, 0, DATA_BYTES),
    ranged("leading zeros", "bytes=0000-00009", 0, 10),
    ranged("the unit in capitals", "BYTES=0-9", 0, 10),
    ranged("an empty element beside the range", "bytes=, 0-9", 0, 10),
    unsatisfied("a start at the end", f"bytes={DATA_BYTES}-", "at or after the end"),
    unsatisfied("a start after the end", f"bytes={10**18}-{10**18 + 9}", "at or after the end"),
    unsatisfied("a start of more digits than any number has", "bytes=" + "9" * 3000 + "-", "at or after the end"),
    unsatisfied("an end before the start", "bytes=9-8", "ends before it starts"),
    unsatisfied("the last 0 bytes", "bytes=-0", "0 bytes"),
    unsatisfied("two ranges", "bytes=0-1,4-5", "not exactly one range"),
    unsatisfied("another unit", "blocks=0-1", "bytes=a-b"),
    unsatisfied("junk", "bytes=a-b", "bytes=a-b"),
    unsatisfied("nothing", "", "bytes=a-b"),
    unsatisfied("a range without numbers", "bytes=-", "bytes=a-b"),
    unsatisfied("a sign", "bytes=+0-9", "bytes=a-b"),
    unsatisfied("a blank within", "bytes=0 -9", "bytes=a-b"),
    unsatisfied("digits of another script", "bytes=0-٩", "bytes=a-b"),
    unsatisfied("hexadecimal digits", "bytes=0x0-0x9", "bytes=a-b"),
    unsatisfied("a range of an empty image", "bytes=0-", "at or after the end", "empty", 0),
    unsatisfied("a suffix of an empty image", "bytes=-5", "empty image", "empty", 0),
    Row("an empty image", request("GET", "/images/empty"), 200, {**BODY, "Content-Length": "0"}, b""),
    Row("HEAD of an empty image", request("HEAD", "/images/empty"), 200, {**BODY, "Content-Length": "0"}),
    Row(
        "If-Range makes it the whole image",
        request("GET", "/images/data", Range="bytes=0-9", If_Range='"x"'),
        200,
        {"Content-Length": str(DATA_BYTES)},
        data(),
    ),
    Row(
        "If-Range with a range that cannot be had",
        request("GET", "/images/data", Range="junk", If_Range='"x"'),
        200,
        {},
        data(),
    ),
    Row(
        "validators are ignored",
        request("GET", "/images/data", If_None_Match="*", If_Modified_Since="Sat, 29 Oct 2050 19:43:31 GMT"),
        200,
        {},
        data(),
    ),
    Row(
        "two Range headers are two ranges",
        b"GET /images/data HTTP/1.1\r\nRange: bytes=0-1\r\nRange: bytes=4-5\r\n\r\n",
        416,
        error="not exactly one range",
    ),
    Row(
        "HEAD of a range that cannot be had",
        request("HEAD", "/images/data", Range=f"bytes={DATA_BYTES}-"),
        416,
        {"Content-Range": f"bytes */{DATA_BYTES}"},
    ),
    Row("a query that nobody knows is ignored", request("GET", "/images/data?x=y"), 200, {}, data()),
    Row(
        "the target may be an absolute URL",
        request("GET", "http://mover/images/data", Range="bytes=1-2"),
        206,
        {},
        data(1, 2),
    ),
    Row("a read-only export", request("GET", "/images/read-only", Range="bytes=5-9"), 206,
        {"Access-Control-Allow-Methods": "GET, HEAD, OPTIONS"}, data(5, 5)),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_reading_row(row: Row, address: Address) -> None:
    """Every row of GET and HEAD is answered as the contract says."""
    row.check(address)


def test_every_byte_of_a_range_is_the_image_s(house: House, address: Address) -> None:
    """Ranges of every length around block and slot borders hold exactly the image's bytes."""
    house.renew()
    with Wire(address) as wire:
        for border in (512, 4096, 524288, 1048576, SCRATCH_BYTES - 1):
            for start in range(border - 3, min(border + 2, SCRATCH_BYTES)):
                for length in (1, 2, 511, 513):
                    answer = wire.ask(request("GET", "/images/scratch", Range=f"bytes={start}-{start + length - 1}"))
                    assert answer.body == scratch(start, min(length, SCRATCH_BYTES - start))
