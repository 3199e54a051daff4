"""What mover/front/sanic_seam.py takes from Sanic, one test for each private attribute, against the pinned version."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import Any

import pytest
import sanic
from sanic import Request
from sanic.exceptions import SanicException
from sanic.http import Http
from sanic.http.constants import Stage
from sanic.server.protocols.http_protocol import HttpProtocol

from mover.front import sanic_bodies, sanic_seam
from mover.front.sanic_seam import ChunkedBody, Sent
from tests.front.conftest import SanicClient
from tests.harness.waiting import PATIENCE_S

GET = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"


def put(length: int, *headers: bytes) -> bytes:
    lines = [b"PUT /x HTTP/1.1", b"Host: x", b"Content-Length: %d" % length, *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


async def ok(request: Request, body: bytes = b"ok") -> Sent:
    return await sanic_seam.reply(request, 200, [("Content-Length", str(len(body)))], body)


def test_the_pinned_minor_version_is_the_one_that_is_tested() -> None:
    assert sanic.__version__.startswith("25.12.")


async def test_the_stream_is_sanics_http_with_its_protocol_and_transport(sanic_client: SanicClient) -> None:
    """`request.stream`, `.protocol`, `request.transport`."""
    found: list[Any] = []

    async def handler(request: Request) -> Sent:
        found.extend([request.stream, sanic_seam.handler_protocol(request), sanic_seam.transport(request)])
        return await ok(request)

    await sanic_client.start(handler)
    client = await sanic_client.connect()
    client.send(GET)
    await client.answer()
    http, protocol, transport = found
    assert isinstance(http, Http)
    assert isinstance(protocol, HttpProtocol)
    assert protocol.transport is transport
    assert protocol in list(sanic_client.connections)


async def test_a_response_of_our_own_leaves_the_stream_idle_and_the_connection_alive(sanic_client: SanicClient) -> None:
    """`stage`, `response_func`: Sanic would answer again, or close, if it found them as they were."""
    streams: list[Any] = []

    async def handler(request: Request) -> Sent:
        streams.append(request.stream)
        assert streams[-1].stage is Stage.HANDLER
        return await ok(request)

    await sanic_client.start(handler)
    client = await sanic_client.connect()
    for _ in range(3):
        client.send(GET)
        head, body = await client.answer()
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Connection: keep-alive" in head
        assert body == b"ok"
    assert streams[0] is streams[2]
    assert streams[0].stage is Stage.IDLE


@pytest.mark.parametrize(
    ("request_head", "says"),
    [
        (b"GET /x HTTP/1.1\r\n\r\n", b"keep-alive"),
        (b"GET /x HTTP/1.1\r\nConnection: close\r\n\r\n", b"close"),
        (b"GET /x HTTP/1.0\r\n\r\n", b"close"),
        (b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", b"keep-alive"),
    ],
)
async def test_our_head_says_what_the_stream_will_do(
    sanic_client: SanicClient, request_head: bytes, says: bytes
) -> None:
    """`keep_alive`."""
    await sanic_client.start(ok)
    client = await sanic_client.connect()
    client.send(request_head)
    head, _ = await client.answer()
    assert b"\r\nConnection: " + says in head
    if says == b"close":
        assert await client.rest() == b""


async def test_an_answer_can_be_made_the_connections_last(sanic_client: SanicClient) -> None:
    """`keep_alive` is ours to set."""

    async def handler(request: Request) -> Sent:
        sanic_seam.close_after(request)
        return await ok(request)

    await sanic_client.start(handler)
    client = await sanic_client.connect()
    client.send(GET + GET)
    head, _ = await client.answer()
    assert b"Connection: close" in head
    assert await client.rest() == b""


async def test_the_answer_to_head_has_no_body(sanic_client: SanicClient) -> None:
    """`head_only`."""
    await sanic_client.start(ok)
    client = await sanic_client.connect()
    client.send(b"HEAD /x HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
    async with asyncio.timeout(PATIENCE_S):
        head = await client.reader.readuntil(b"\r\n\r\n")
    assert b"Content-Length: 2" in head
    assert (await client.answer())[1] == b"ok"


async def test_progress_restarts_sanics_clock(sanic_client: SanicClient) -> None:
    """`_time`, which `check_timeouts` compares."""

    async def handler(request: Request) -> Sent:
        protocol: Any = sanic_seam.handler_protocol(request)
        protocol._time = 0.0
        sanic_seam.progress(request)
        assert protocol._time > 0
        return await ok(request)

    await sanic_client.start(handler)
    client = await sanic_client.connect()
    client.send(GET)
    assert (await client.answer())[1] == b"ok"
    assert "_time" in inspect.getsource(HttpProtocol.check_timeouts)


async def test_no_response_is_ended_by_sanics_deadline(sanic_client: SanicClient) -> None:
    """RESPONSE_TIMEOUT: a flowing PUT got 503 by its default of 60 s."""
    seen: list[float] = []

    async def handler(request: Request) -> Sent:
        protocol: Any = sanic_seam.handler_protocol(request)
        seen.append(protocol.response_timeout)
        return await ok(request)

    await sanic_client.start(handler)
    client = await sanic_client.connect()
    client.send(GET)
    await client.answer()
    assert seen[0] > 365 * 86400


@pytest.mark.parametrize(
    ("head", "left"), [(GET, 0), (put(7), 7), (put(0), 0), (GET[:-2] + b"Transfer-Encoding: chunked\r\n\r\n", None)]
)
async def test_what_is_left_of_a_body_is_known(sanic_client: SanicClient, head: bytes, left: int | None) -> None:
    """`request_body`, `request_bytes_left`."""
    found: list[int | None] = []

    async def handler(request: Request) -> Sent:
        found.append(sanic_bodies.body_left(request))
        sanic_seam.close_after(request)
        sanic_bodies.body_taken(request, 0)
        return await ok(request)

    await sanic_client.start(handler)
    client = await sanic_client.connect()
    client.send(head)
    await client.answer()
    assert found == [left]


async def test_bytes_in_sanics_buffer_are_taken_and_the_next_request_stays(sanic_client: SanicClient) -> None:
    """`recv_buffer`, `request_bytes_left`, `request_body`."""
    taken: list[bytes] = []

    async def handler(request: Request) -> Sent:
        if request.method == "PUT":
            taken.append(sanic_bodies.take_buffered(request, 3))
            taken.append(sanic_bodies.take_buffered(request, 2))
            sanic_bodies.body_taken(request, 0)
        return await ok(request, request.method.encode())

    await sanic_client.start(handler)
    client = await sanic_client.connect()
    client.send(put(5) + b"abcde" + GET)
    assert (await client.answer())[1] == b"PUT"
    assert (await client.answer())[1] == b"GET"
    assert taken == [b"abc", b"de"]


async def test_a_body_is_asked_for_once_when_the_client_waits_to_be_asked(sanic_client: SanicClient) -> None:
    """`expecting_continue`: Sanic's own answer would say it again."""

    async def handler(request: Request) -> Sent:
        assert sanic_bodies.expects_continue(request)
        await sanic_bodies.send_continue(request)
        await sanic_bodies.send_continue(request)
        assert not sanic_bodies.expects_continue(request)
        return await ok(request, await sanic_bodies.read_body(request, 10) or b"")

    await sanic_client.start(handler)
    client = await sanic_client.connect()
    client.send(put(3, b"Expect: 100-continue"))
    assert (await client.answer())[0] == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"abc")
    head, body = await client.answer()
    assert head.startswith(b"HTTP/1.1 200")
    assert body == b"abc"


@pytest.mark.parametrize(("most", "found"), [(4, b"None"), (5, b"12345"), (6, b"12345")])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_is_read_whole_if_it_is_not_too_long(
    sanic_client: SanicClient, most: int, found: bytes, chunked: bool
) -> None:
    """`read`, `request_max_size`."""

    async def handler(request: Request) -> Sent:
        body = await sanic_bodies.read_body(request, most)
        sanic_seam.close_after(request)
        return await ok(request, body if body is not None else b"None")

    await sanic_client.start(handler)
    client = await sanic_client.connect()
    if chunked:
        client.send(b"PUT /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n12\r\n3\r\n345\r\n0\r\n\r\n")
    else:
        client.send(put(5) + b"12345")
    assert (await client.answer())[1] == found


@pytest.mark.parametrize("length", [1, 100_000, sanic_bodies.DRAIN_BYTES])
async def test_a_small_body_that_is_refused_is_dropped_and_the_connection_goes_on(
    sanic_client: SanicClient, length: int
) -> None:
    async def handler(request: Request) -> Sent:
        await sanic_bodies.settle_body(request)
        return await ok(request, request.method.encode())

    await sanic_client.start(handler)
    client = await sanic_client.connect()
    client.send(put(length) + bytes(length) + GET)
    assert b"keep-alive" in (await client.answer())[0]
    assert (await client.answer())[1] == b"GET"


async def test_the_rest_of_a_large_body_that_failed_late_is_dropped_too(sanic_client: SanicClient) -> None:
    """`request_max_size`, `request_bytes`: what was taken past Sanic does not count."""
    rest = 1000

    async def handler(request: Request) -> Sent:
        if request.method == "PUT":
            sanic_bodies.body_taken(request, rest)
            await sanic_bodies.settle_body(request)
        return await ok(request, request.method.encode())

    await sanic_client.start(handler)
    client = await sanic_client.connect()
    client.send(put(4 * sanic_bodies.DRAIN_BYTES) + bytes(rest) + GET)
    assert (await client.answer())[1] == b"PUT"
    assert (await client.answer())[1] == b"GET"


async def test_a_large_body_that_is_refused_costs_the_connection_and_the_client_reads_why(
    sanic_client: SanicClient,
) -> None:
    """`_receive_more`, `write_eof`: closing with bytes unread would reset the connection under the answer."""

    async def handler(request: Request) -> Sent:
        await sanic_bodies.settle_body(request)
        return await ok(request, b"refused")

    await sanic_client.start(handler)
    client = await sanic_client.connect()
    client.send(put(2**30) + bytes(300_000))
    head, body = await client.answer()
    assert b"Connection: close" in head
    assert body == b"refused"
    client.send(bytes(300_000))
    client.writer.write_eof()
    assert await client.rest() == b""


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_a_body_of_unknown_length_is_chunked_or_ended_by_the_connection(
    sanic_client: SanicClient, version: bytes
) -> None:
    async def handler(request: Request) -> Sent:
        body = ChunkedBody(request, 200, [])
        await body.begin()
        await body.send(b"one")
        await body.send(b"two")
        return await body.end()

    await sanic_client.start(handler)
    client = await sanic_client.connect()
    client.send(b"GET /x HTTP/%b\r\nConnection: close\r\n\r\n" % version)
    _, _, body = (await client.rest()).partition(b"\r\n\r\n")
    assert body == (b"onetwo" if version == b"1.0" else b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    "head",
    [
        b"GET /x HTTP/1.1\nHost: x\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET /x HTTP/1.1\r\n Host: x\r\n\r\n",
        b"GET /x HTTP/1.1\r\n: x\r\n\r\n",
        b"GET /x HTTP/1.1\r\nA: b\rc\r\n\r\n",
        b"GET /x HTTP/1.1\r\nA: b\0c\r\n\r\n",
        b"PUT /x HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc",
        b"PUT /x HTTP/1.1\r\nContent-Length: 0x3\r\n\r\nabc",
        "PUT /x HTTP/1.1\r\nContent-Length: ๓\r\n\r\nabc".encode(),
        b"PUT /x HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        b"PUT /x HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
    ],
    ids=repr,
)
async def test_a_head_that_could_be_read_in_two_ways_is_refused(sanic_client: SanicClient, head: bytes) -> None:
    """`Request.__init__` has `head` and `headers`; Sanic turns what it raises into an answer."""
    await sanic_client.start(ok)
    client = await sanic_client.connect()
    client.send(head)
    assert (await client.answer())[0].startswith(b"HTTP/1.1 400 ")


async def test_idle_connections_are_closed_and_busy_ones_told(sanic_client: SanicClient) -> None:
    """`connections`, `close_if_idle`, `http`."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def handler(request: Request) -> Sent:
        begun.set()
        await go_on.wait()
        return await ok(request)

    await sanic_client.start(handler)
    idle, busy = await sanic_client.connect(), await sanic_client.connect()
    busy.send(GET)
    await begun.wait()
    sanic_client.connections.close_idle()
    assert await idle.rest() == b""
    go_on.set()
    head, body = await busy.answer()
    assert b"Connection: close" in head
    assert body == b"ok"


@pytest.mark.parametrize(
    "header", [b"Content-Length: 10\r\nExpect: tea", b"Content-Length: ten", b"Content-Length : 10", b"no colon"]
)
async def test_a_request_whose_head_is_refused_is_told_apart_and_its_client_may_still_read(
    sanic_client: SanicClient, header: bytes
) -> None:
    """Its body may be under way: the connection is closed only when the client has had time to read the answer."""
    found: list[bool] = []

    async def refused(request: Request, error: SanicException) -> Sent:
        found.append(sanic_seam.head_was_read(request))
        return await sanic_seam.reply(request, error.status_code, [("Content-Length", "0")])

    async def never(request: Request) -> Sent:
        raise AssertionError

    sanic_client.app.exception(SanicException)(refused)
    await sanic_client.start(never)
    client = await sanic_client.connect()
    client.send(b"PUT /x HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n\r\n")
    assert b" 4" in (await client.answer())[0]
    (connection,) = sanic_client.connections
    assert connection.transport is not None
    assert (found, connection.transport.is_closing()) == ([False], False)
    client.send(b"0123456789")
    assert await client.rest() == b""


async def test_an_announced_body_of_no_bytes_is_no_error(
    sanic_client: SanicClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Many clients say Content-Length: 0 with a POST; Sanic would log that nobody has read it."""

    async def handler(request: Request) -> Sent:
        return await sanic_seam.reply(request, 200, [("Content-Length", "0")])

    await sanic_client.start(handler)
    client = await sanic_client.connect()
    for _ in range(2):
        client.send(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert b" 200" in (await client.answer())[0]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
