"""OPTIONS, ids, paths and methods, and what the service says of itself."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.contract.house import LONGEST_ID, UTF8_ID, House, data
from tests.contract.wire import Row, Wire, request
from tests.harness.http import Address

pytestmark = pytest.mark.nbd

WRITING = "GET, HEAD, PUT, PATCH, POST, OPTIONS"
READING = "GET, HEAD, OPTIONS"
EVERYTHING = ["checksum", "extents", "flush", "zero"]
PREFLIGHT = {
    "Accept-Ranges": "bytes",
    "Access-Control-Allow-Origin": "https://appliance.example",
    "Access-Control-Allow-Headers": "Content-Range, Content-Type, If-Range, Range",
    "Access-Control-Expose-Headers": "Accept-Ranges, Content-Disposition, Content-Range, Retry-After",
}


def options(says: str, image: str, features: list[str], methods: str = WRITING) -> tuple[Row, dict[str, object]]:
    """What an image allows; the path of the Unix socket is added by the test."""
    answer = {"features": features, "max_readers": 64, "max_writers": 64 if methods == WRITING else 0}
    headers = {"Allow": methods, "Access-Control-Allow-Methods": methods, **PREFLIGHT}
    return Row(says, request("OPTIONS", f"/images/{image}"), 200, headers), answer


OPTIONS = [
    options("an image with everything", "data", EVERYTHING),
    options("a read-only export", "read-only", ["checksum", "extents"], READING),
    options("a server without flush", "no-flush", ["checksum", "extents", "zero"]),
    options("a server without zero, which Mover does by writing", "no-zero", EVERYTHING),
    options("a server without extents, for which all is data", "no-extents", EVERYTHING),
    options("an empty image", "empty", EVERYTHING),
    (
        Row("the server itself", request("OPTIONS", "/images/*"), 200, {"Allow": WRITING, **PREFLIGHT}),
        {"features": EVERYTHING},
    ),
]


@pytest.mark.parametrize(("row", "allowed"), OPTIONS, ids=lambda part: str(part) if isinstance(part, Row) else "")
def test_options_row(row: Row, allowed: dict[str, object], house: House, address: Address) -> None:
    """OPTIONS tells what the export and the ticket really allow."""
    assert row.check(address).json() == {**allowed, "unix_socket": str(house.mover.unix)}


def id_row(says: str, id: str, status: int) -> Row:
    """GET of a byte by an id."""
    error = {400: "invalid image_id", 404: "unknown image_id"}.get(status, "")
    body = data(0, 1) if status == 206 else None
    return Row(says, request("GET", f"/images/{id}", Range="bytes=0-0"), status, {}, body, error=error)


ROWS = [
    id_row("dots", "..", 400),
    id_row("a dot", ".", 400),
    id_row("dots, encoded", "%2e%2e", 400),
    id_row("a dot, encoded", "%2E", 400),
    id_row("one dot encoded", ".%2e", 400),
    id_row("dots, encoded twice, are decoded once", "%252e%252e", 404),
    id_row("three dots are an id like any other", "...", 404),
    id_row("a slash, encoded", "da%2Fta", 400),
    id_row("a way out, encoded", "..%2F..%2Fetc%2Fpasswd", 400),
    id_row("a backslash", "da\\ta", 400),
    id_row("a backslash, encoded", "da%5cta", 400),
    id_row("NUL", "%00", 400),
    id_row("NUL after an id", "data%00", 400),
    id_row("the longest id", LONGEST_ID, 206),
    id_row("a longer id", LONGEST_ID + "x", 400),
    id_row("the longest id, encoded", "%78" * 255, 206),
    id_row("a longer id, encoded", "%78" * 256, 400),
    id_row("255 bytes of UTF-8", quote("ü" * 127 + "x"), 404),
    id_row("256 bytes of UTF-8 that are 128 characters", quote("ü" * 128), 400),
    id_row("UTF-8", quote(UTF8_ID), 206),
    id_row("no UTF-8", "%ff%fe", 400),
    id_row("half a surrogate pair", "%ed%a0%80", 400),
    id_row("an encoding that is none", "%zz", 404),
    id_row("an id in other letters", "DATA", 404),
    id_row("letters that need no encoding, encoded", "%64ata", 206),
    id_row("a blank", "%20", 404),
    Row("bytes that no URL has", "GET /images/ü HTTP/1.1\r\nHost: mover\r\n\r\n".encode(), 400, closes=True),
    *(
        Row(f"{method} of an invalid id", request(method, f"/images/%2e%2e{more}", b"{}"), 400, error="invalid")
        for method, more in (
            ("HEAD", ""), ("PUT", ""), ("PATCH", ""), ("OPTIONS", ""), ("GET", "/extents"), ("POST", "/flush"),
        )
    ),
    *(
        Row(f"{method} of an unknown id", request(method, f"/images/nobody{more}", b"{}"), 404, error="unknown")
        for method, more in (
            ("HEAD", ""), ("PUT", ""), ("PATCH", ""), ("OPTIONS", ""), ("GET", "/extents"), ("POST", "/flush"),
        )
    ),
    *(
        Row(f"{method} {path}", request(method, path), 405, {"Allow": allow})
        for method, path, allow in (
            ("POST", "/images/data", "GET, HEAD, PUT, PATCH, OPTIONS"),
            ("DELETE", "/images/data", "GET, HEAD, PUT, PATCH, OPTIONS"),
            ("TRACE", "/images/data", "GET, HEAD, PUT, PATCH, OPTIONS"),
            ("BREW", "/images/data", "GET, HEAD, PUT, PATCH, OPTIONS"),
            ("get", "/images/data", "GET, HEAD, PUT, PATCH, OPTIONS"),
            ("Put", "/images/data", "GET, HEAD, PUT, PATCH, OPTIONS"),
            ("GET", "/images/data/flush", "POST"),
            ("DELETE", "/images/data/extents", "GET, HEAD"),
            ("POST", "/info/", "GET, HEAD"),
            ("PUT", "/healthz", "GET, HEAD"),
            ("OPTIONS", "/readyz", "GET, HEAD"),
        )
    ),
    *(
        Row(f"GET {path}", request("GET", path), 404)
        for path in (
            "/images", "/images/", "/images//", "/images//extents", "/images/data/x", "/images/data/extents/x",
            "/Images/data", "/image/data", "/info/x", "/healthz/x", "//images/data", "/favicon.ico",
        )
    ),
    Row("PUT with a body to an unknown path", request("PUT", "/nothing", b"GET / HTTP/1.1\r\n\r\n"), 404),
    Row("healthz", request("GET", "/healthz"), 200, {}, {"status": "ok"}),
    Row("readyz", request("GET", "/readyz"), 200, {}, {"status": "ready"}),
    Row("HEAD of healthz", request("HEAD", "/healthz"), 200, {"Content-Type": "application/json"}, b""),
    Row("info", request("GET", "/info"), 200, {"Content-Type": "application/json"}),
    Row("info/", request("GET", "/info/"), 200, {"Content-Type": "application/json"}),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_service_row(row: Row, address: Address) -> None:
    """Ids, paths and methods are told apart as the contract says."""
    row.check(address)


def test_info_tells_the_version(address: Address) -> None:
    """`/info/` has the version and nothing else."""
    with Wire(address) as wire:
        info = wire.ask(request("GET", "/info/")).json()
    assert list(info) == ["version"]
    assert isinstance(info["version"], str)


def test_workers_are_shown_on_the_unix_socket_only(house: House) -> None:
    """`/workers` is for this host: over TCP it is not there."""
    Row("", request("GET", "/workers"), 404).check(house.mover.tcp)
    with Wire(house.mover.unix) as wire:
        wire.ask(request("GET", "/images/data", Range="bytes=0-0"))
        rows = wire.ask(request("GET", "/workers")).json()
    row = next(row for row in rows if row["export"].endswith("data.nbd"))
    assert row["state"] == "ready"
    assert set(row) >= {"export", "pid", "state", "connections", "in_flight", "in_flight_peak", "bytes_read"}
    assert set(row) >= {"bytes_written", "restarts", "replays", "uss_bytes", "lanes"}
    assert set(row["lanes"][0]) == {"front_end", "slots", "slots_used"}


def test_ids_never_stand_whole_in_the_log(house: House, address: Address) -> None:
    """Neither of images that are served nor of such that are not, be it at the level debug."""
    with Wire(address) as wire:
        for id in (LONGEST_ID, quote(UTF8_ID), "somebody-else-s-secret-image"):
            wire.ask(request("GET", f"/images/{id}"))
            wire.ask(request("GET", f"/images/{id}", Range="bytes=9-1"))
    log = house.mover.log()
    assert not [id for id in (LONGEST_ID, UTF8_ID, quote(UTF8_ID), "somebody-else-s-secret-image") if id in log]


UNREACHABLE = {"gone": "No such file", "closed": "refused", "wrong-name": "does not serve this export"}


@pytest.mark.parametrize("image", UNREACHABLE)
def test_an_export_that_cannot_be_reached(image: str, address: Address) -> None:
    """Each method says so with 502 or 503 and the reason, before it asks for a body; the connection goes on."""
    for method, more, body in (
        ("GET", "", None), ("HEAD", "", None), ("OPTIONS", "", None), ("GET", "/extents", None), ("PUT", "", b"x"),
        ("PATCH", "", b'{"op": "flush"}'), ("POST", "/flush", None),
    ):  # fmt: skip
        with Wire(address) as wire:
            answer = wire.ask(request(method, f"/images/{image}{more}", body))
            assert answer.status in (502, 503)
            assert method == "HEAD" or UNREACHABLE[image] in answer.error
            assert wire.goes_on()
    with Wire(address) as wire:
        answer = wire.ask(request("PUT", f"/images/{image}", Content_Length=10, Expect="100-continue"))
        assert (answer.status in (502, 503), answer.interim) == (True, ())
