"""Heads: what leaves a doubt is refused, what every client sends is not."""

from __future__ import annotations

import pytest

from mover.front.heads import HEAD_BYTES, fault, large_heads, most_bytes

GET = b"GET /images/x HTTP/1.1"


@pytest.mark.parametrize(
    "head",
    [
        GET,
        GET + b"\r\nHost: mover:54322\r\nAccept: */*\r\nUser-Agent: curl/7.88.1",
        b"OPTIONS * HTTP/1.0\r\nX-Empty:\r\nX-Blank: \t ",
        b"BREW /%C3%A4?a=b&c=[d] HTTP/1.1\r\nX: \xc3\xa4\xff\tb\r\n!#$%&'*+-.^_`|~: token",
        GET + b"\r\nContent-Length: 0",
        GET + b"\r\nCONTENT-LENGTH:\t 1000000000000000000 \t",
        GET + b"\r\nTransfer-Encoding: chunked",
        GET + b"\r\nX-Content-Length: 5\r\nContent-Length-X: y\r\nContent-Length: 5",
    ],
)
def test_heads_that_are_clear(head: bytes) -> None:
    """What the specification allows."""
    assert fault(head, b"ength" in head or b"ncoding" in head) is None


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (b"", "request line"),
        (b"GET /", "request line"),
        (b"GET  / HTTP/1.1", "request line"),
        (b"GET / HTTP/1.1 ", "no header"),
        (b" GET / HTTP/1.1", "request line"),
        (b"GET\t/ HTTP/1.1", "request line"),
        (b"GET /\x0b HTTP/1.1", "request line"),
        (b"GET /\xc3\xa4 HTTP/1.1", "request line"),
        (b"GET / HTTP/2.0", "request line"),
        (b"G@T / HTTP/1.1", "request line"),
        (GET + b"\nHost: x", "no header"),
        (GET + b"\r\nHost: x\nY: z", "no header"),
        (GET + b"\r\nHost: x\rY: z", "no header"),
        (GET + b"\r\nHost: x\r\n Y: z", "no header"),
        (GET + b"\r\n\tY: z", "no header"),
        (GET + b"\r\nHost : x", "no header"),
        (GET + b"\r\nHost\x0b: x", "no header"),
        (GET + b"\r\nHost", "no header"),
        (GET + b"\r\n: x", "no header"),
        (GET + b"\r\nH(st: x", "no header"),
        (GET + b"\r\nH\xc3\xb6st: x", "no header"),
        (GET + b"\r\nHost: \0", "no header"),
        (GET + b"\r\nHost: a\x7f", "no header"),
        (GET + b"\r\nTransfer-Encoding: \x0bchunked", "no header"),
        (GET + b"\r\nTransfer-Encoding: \xc2\xa0chunked", "not chunked"),
        (GET + b"\r\nTransfer-Encoding: xchunked", "not chunked"),
        (GET + b"\r\nTransfer-Encoding: CHUNKED", "not chunked"),
        (GET + b"\r\nTransfer-Encoding: gzip, chunked", "not chunked"),
        (GET + b"\r\nTransfer-Encoding: chunked, chunked", "not chunked"),
        (GET + b"\r\nTransfer-Encoding:", "not chunked"),
        (GET + b"\r\nTransfer-Encoding: chunked\r\ntransfer-encoding: chunked", "twice"),
        (GET + b"\r\nContent-Length: 5\r\nContent-Length: 5", "twice"),
        (GET + b"\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", "twice"),
        (GET + b"\r\nContent-Length: \xc2\xa05", "no number"),
        (GET + b"\r\nContent-Length: +5", "no number"),
        (GET + b"\r\nContent-Length: -5", "no number"),
        (GET + b"\r\nContent-Length: 5_0", "no number"),
        (GET + b"\r\nContent-Length: 0x5", "no number"),
        (GET + b"\r\nContent-Length: 5, 5", "no number"),
        (GET + b"\r\nContent-Length: 5 5", "no number"),
        (GET + b"\r\nContent-Length: \xef\xbc\x95", "no number"),
        (GET + b"\r\nContent-Length: 10000000000000000000000", "no number"),
        (GET + b"\r\nContent-Length:", "no number"),
    ],
)
def test_heads_that_leave_a_doubt(head: bytes, why: str) -> None:
    """What another reader could take for something else."""
    assert why in str(fault(head, b"ength" in head or b"ncoding" in head))


def test_a_head_is_read_in_one_pass() -> None:
    """However many blanks stand in it: a megabyte of them, tried each with each, would take hours."""
    assert fault(GET + b"\r\nContent-Length: 1" + b" " * (1 << 20) + b"x", True) == "Content-Length is no number"


@pytest.mark.parametrize(
    ("begun", "most"),
    [
        (b"POST /v1/images HTTP/1.1", 65536),
        (b"GET /v2?x HTTP/1.1", 65536),
        (b"PUT /house/visor/images/1 HTTP/1.1", 65536),
        (b"GET /v1x HTTP/1.1", HEAD_BYTES),
        (b"GET /images/v1/ HTTP/1.1", HEAD_BYTES),
        (b"", HEAD_BYTES),
    ],
)
def test_heads_of_the_library_may_be_larger(begun: bytes, most: int) -> None:
    assert most_bytes(bytearray(begun), large_heads(["/v1", "/v2", "/house/visor", ""], 65536)) == most
    assert most_bytes(begun, None) == HEAD_BYTES
