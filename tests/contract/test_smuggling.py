"""Requests that hide others: whatever one sends, each request has one answer, and none comes of a body.

Each attack carries `SMUGGLED`, a PUT; it must never be carried out. Where a reader before Mover may have seen another
end of the request, the connection must not go on.
"""

from __future__ import annotations

import pytest

from tests.contract.house import KIB, MIB, House, scratch
from tests.contract.wire import Wire, request
from tests.harness.http import Address

pytestmark = pytest.mark.nbd

TARGET = "/images/scratch"
SMUGGLED = request("PUT", f"{TARGET}?flush=n", b"smuggled")
ZERO = b'{"op": "zero", "offset": 2000000, "size": 10}'
HUGE = b"f" * 15


def raw(*lines: bytes, body: bytes = b"", method: bytes = b"PUT") -> bytes:
    """A request of these header lines, as they stand, and the smuggled one after its body."""
    first = method + b" /images/scratch?flush=n HTTP/1.1"
    return b"\r\n".join([first, b"Host: x", *lines, b"", b""]) + body + SMUGGLED


def chunked(body: bytes) -> bytes:
    """A PATCH with JSON whose chunks are written as in `body`."""
    return raw(b"Transfer-Encoding: chunked", body=body, method=b"PATCH")


ONE_CHUNK = b"%x\r\n%b\r\n" % (len(ZERO), ZERO)
BODY = b"5\r\nhello\r\n0\r\n\r\n"

# Heads of which two readers may think differently.
DOUBTS = {
    "a length and chunks": raw(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=BODY),
    "chunks and a length": raw(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=BODY),
    "two lengths": raw(b"Content-Length: 5", b"Content-Length: 0", body=b"hello"),
    "the same length twice": raw(b"Content-Length: 5", b"Content-Length: 5", body=b"hello"),
    "a list of lengths": raw(b"Content-Length: 5, 5", body=b"hello"),
    "a signed length": raw(b"Content-Length: +5", body=b"hello"),
    "a negative length": raw(b"Content-Length: -1"),
    "a length with a no-break space": raw(b"Content-Length: \xc2\xa05", body=b"hello"),
    "a length in hexadecimal": raw(b"Content-Length: 0x5", body=b"hello"),
    "a length with a blank in it": raw(b"Content-Length: 5 0", body=b"hello"),
    "two encodings": raw(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", body=BODY),
    "a list of encodings": raw(b"Transfer-Encoding: identity, chunked", body=BODY),
    "an encoding that looks like chunked": raw(b"Transfer-Encoding: xchunked", body=BODY),
    "an encoding in capitals": raw(b"Transfer-Encoding: CHUNKED", body=BODY),
    "an encoding after a vertical tab": raw(b"Transfer-Encoding: \x0bchunked", body=BODY),
    "an encoding after a no-break space": raw(b"Transfer-Encoding: \xc2\xa0chunked", body=BODY),
    "an encoding's name with a vertical tab": raw(b"Transfer-Encoding\x0b: chunked", body=BODY),
    "a blank before the colon": raw(b"Transfer-Encoding : chunked", body=BODY),
    "a tab before the colon": raw(b"Content-Length\t: 5", body=b"hello"),
    "a folded encoding": raw(b"Transfer-Encoding:", b" chunked", body=BODY),
    "a folded header": raw(b"X: y", b" Content-Length: 5", b"Content-Length: 0", body=b"hello"),
    "a blank before the first header": raw(b" Content-Length: 5", body=b"hello"),
    "a bare LF": raw(b"X: y\nContent-Length: 5", body=b"hello"),
    "a bare CR": raw(b"X: y\rContent-Length: 5", body=b"hello"),
    "a NUL": raw(b"X: \0", b"Content-Length: 5", body=b"hello"),
    "a control character": raw(b"X: \x08", b"Content-Length: 5", body=b"hello"),
    "no name": raw(b": y", b"Content-Length: 5", body=b"hello"),
    "no colon": raw(b"Content-Length 5", body=b"hello"),
    "a name that is no token": raw(b"Content(Length: 5", b"Content-Length: 5", body=b"hello"),
    "a request line with two blanks": b"PUT  /images/scratch HTTP/1.1\r\nContent-Length: 0\r\n\r\n" + SMUGGLED,
    "a request line with a tab": b"PUT\t/images/scratch HTTP/1.1\r\nContent-Length: 0\r\n\r\n" + SMUGGLED,
    "HTTP/1.2": b"PUT /images/scratch HTTP/1.2\r\nContent-Length: 0\r\n\r\n" + SMUGGLED,
    "an empty line first": b"\r\n" + SMUGGLED,
    "chunks for an image": raw(b"Transfer-Encoding: chunked", body=BODY),
    # Of the chunks of a body that is taken.
    "a size with a prefix": chunked(b"0x2d\r\n" + ZERO + b"\r\n0\r\n\r\n"),
    "a size with a sign": chunked(b"+2d\r\n" + ZERO + b"\r\n0\r\n\r\n"),
    "a negative size": chunked(b"-2d\r\n" + ZERO + b"\r\n0\r\n\r\n"),
    "a size with an underscore": chunked(b"2_d\r\n" + ZERO + b"\r\n0\r\n\r\n"),
    "a blank before the size": chunked(b" 2d\r\n" + ZERO + b"\r\n0\r\n\r\n"),
    "no size": chunked(b"\r\n" + ZERO + b"\r\n0\r\n\r\n"),
    "a size of an exabyte": chunked(HUGE + b"\r\n" + ZERO + b"\r\n0\r\n\r\n"),
    "a size of more than 64 bits": chunked(b"1" + b"0" * 16 + b"\r\n" + ZERO + b"\r\n0\r\n\r\n"),
    "a size line that ends with LF": chunked(b"2d\n" + ZERO + b"\r\n0\r\n\r\n"),
    "a chunk that is longer than it says": chunked(b"5\r\n" + ZERO + b"\r\n0\r\n\r\n"),
    "a chunk without its end": chunked(b"2d\r\n" + ZERO + b"xx0\r\n\r\n"),
    "a chunk's extension of 2 KiB": chunked(b"2d;x=" + b"y" * 2 * KIB + b"\r\n" + ZERO + b"\r\n0\r\n\r\n"),
    "an extension with a bare CR": chunked(b"2d;x\ry\r\n" + ZERO + b"\r\n0\r\n\r\n"),
    "a trailer that is a request": chunked(ONE_CHUNK + b"0\r\n" + SMUGGLED),
    "trailers of 16 KiB": chunked(ONE_CHUNK + b"0\r\n" + (b"x: " + b"y" * 500 + b"\r\n") * 32 + b"\r\n"),
    "a chunk larger than JSON may be": chunked(b"100000\r\n" + bytes(MIB) + b"\r\n0\r\n\r\n"),
}  # fmt: skip

# What is clear, however odd: each is answered, and then the request after it.
CLEAR = {
    "a body that nobody reads": request("GET", TARGET, SMUGGLED * 100, Range="bytes=0-9"),
    "a body of an unknown image": request("PUT", "/images/nobody", SMUGGLED * 100),
    "a body with a request's length": request("PUT", "/images/read-only", SMUGGLED),
    "an extension": request("PATCH", TARGET, b"2d;x=y\r\n" + ZERO + b"\r\n0;z\r\n\r\n", Transfer_Encoding="chunked"),
    "a trailer": request("PATCH", TARGET, ONE_CHUNK + b"0\r\nX: PUT\r\n\r\n", Transfer_Encoding="chunked"),
    "chunks of a byte": request(
        "PATCH", TARGET, b"".join(b"1\r\n%c\r\n" % byte for byte in ZERO) + b"0\r\n\r\n", Transfer_Encoding="chunked"
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", DOUBTS.values(), ids=[name.replace(" ", "-") for name in DOUBTS])
def test_what_could_be_read_in_two_ways_ends_the_connection(attack: bytes, house: House, wire_address: Address) -> None:
    """It is answered once, with 400 (or 431 for a long line), and the connection is closed; nothing is written."""
    house.renew()
    with Wire(wire_address) as wire:
        wire.send(attack)
        answer = wire.answer()
        assert (answer.status, answer.headers["connection"]) == (400, "close"), answer
        assert wire.rest() == b""
    assert house.written(0, MIB) == scratch(0, MIB)


@pytest.mark.parametrize("sent", CLEAR.values(), ids=[name.replace(" ", "-") for name in CLEAR])
def test_what_is_clear_is_answered_and_the_next_request_after_it(
    sent: bytes, house: House, wire_address: Address
) -> None:
    """The body is no request, and the request after it is one."""
    house.renew()
    with Wire(wire_address) as wire:
        for _ in range(3):
            wire.send(sent + request("GET", TARGET, Range="bytes=0-7"))
            wire.answer()
            assert wire.answer().body == scratch(0, 8)
        assert wire.goes_on()
    assert house.written(0, MIB) == scratch(0, MIB)


@pytest.mark.parametrize("name", ["a trailer that is a request", "two lengths", "a folded encoding", "a bare LF"])
def test_an_attack_in_single_bytes_fares_no_better(name: str, house: House, wire_address: Address) -> None:
    """Where the packets end makes no difference."""
    house.renew()
    attack = DOUBTS[name]
    with Wire(wire_address) as wire:
        try:
            for at in range(len(attack)):
                wire.send(attack[at : at + 1])
        except ConnectionError:
            pass  # it has been refused already
        answer = wire.answer()
        assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert house.written(0, MIB) == scratch(0, MIB)
