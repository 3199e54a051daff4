"""The contract over TLS: a part of the tables that hold without it."""

from __future__ import annotations

import pytest

from tests.contract import test_checksum, test_connections, test_extents, test_extents_in_parts, test_reading
from tests.contract.house import House, data, scratch
from tests.contract.wire import Row, Wire, request
from tests.harness.http import Secure
from tests.harness.patterns import pattern

pytestmark = pytest.mark.nbd

TABLES = (test_reading, test_connections, test_extents, test_extents_in_parts, test_checksum)
# Each third row of each table: what differs over TLS is below what most rows are about.
ROWS = [row for table in TABLES for row in table.ROWS[::3]]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row(row: Row, house: House, secure: Secure) -> None:
    """What is asked is answered as over a plain connection, and the connection goes on or ends in the same way."""
    house.renew()
    row.check(secure)


def test_pipelined_writes_and_reads_see_each_other(house: House, secure: Secure) -> None:
    """A read that was sent after a write, without waiting for its answer, reads what was written."""
    house.renew()
    bodies = [pattern(11, number, length) for number, length in enumerate((1, 5000, 70_000, 600_000))]
    with Wire(secure) as wire:
        for body in bodies:
            write = request("PUT", "/images/scratch?flush=n", body, Content_Range="bytes 5000-*/*")
            wire.send(write + request("GET", "/images/scratch", Range=f"bytes=5000-{5000 + len(body) - 1}"))
            assert wire.answer().json()["bytes_written"] == len(body)
            assert wire.answer().body == body
        assert wire.goes_on()
    assert house.written(0, 5000) == scratch(0, 5000)


def test_a_body_is_asked_for(house: House, secure: Secure) -> None:
    """100 Continue comes before the body, and the answer after it."""
    house.renew()
    body = pattern(5, 0, 300_000)
    with Wire(secure) as wire:
        wire.send(request("PUT", "/images/scratch", None, Content_Length=len(body), Expect="100-continue"))
        assert wire.interim() == 100
        wire.send(body)
        assert wire.answer().status == 200
        assert wire.goes_on()
    assert house.written(0, len(body)) == body


def test_pipelined_reads_come_in_order(secure: Secure) -> None:
    """Small and large bodies, asked for all at once, come in order and to the byte."""
    spans = [(number * 7919, (1, 100, 65536, 65537, 700_000)[number % 5]) for number in range(40)]
    with Wire(secure) as wire:
        wire.send(b"".join(request("GET", "/images/data", Range=f"bytes={at}-{at + n - 1}") for at, n in spans))
        for at, length in spans:
            assert wire.answer().body == data(at, length)
        assert wire.goes_on()
