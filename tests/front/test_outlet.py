"""The way of a response body past the transport: all of it, in order, at the client's pace."""

from __future__ import annotations

import asyncio

import pytest
from sanic import Request

from mover.front import sanic_seam
from mover.front.errors import ClientGone
from mover.front.outlet import ZERO_VIEWS, ZEROS, Outlet, PlainOutlet
from mover.front.pace import Pace
from mover.front.sanic_seam import Sent
from tests.front.conftest import SanicClient
from tests.harness.waiting import PATIENCE_S

GET = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"
BODY = bytes(range(256)) * 128 * 1024  # 32 MiB: more than the buffers of both sides hold


def patient() -> Pace:
    return Pace(PATIENCE_S, 1)


async def test_a_body_larger_than_every_buffer_arrives_whole_and_the_next_request_is_answered(
    sanic_client: SanicClient,
) -> None:
    sent: list[int] = []

    async def handler(request: Request) -> Sent:
        head = sanic_seam.head(request, 200, [("Content-Length", str(len(BODY)))])
        outlet = PlainOutlet(request, patient())
        await outlet.begin()
        sent.append(outlet.send(head, BODY))
        await outlet.send_all(memoryview(BODY)[sent[-1] - len(head) :])
        outlet.close()
        return await sanic_seam.finished(request, 200)

    await sanic_client.start(handler)
    client = await sanic_client.connect()
    for _ in range(2):
        client.send(GET)
        assert (await client.answer())[1] == BODY
    assert max(sent) < len(BODY)


@pytest.mark.parametrize(
    "length", [1, len(ZEROS), len(ZEROS) + 1, ZERO_VIEWS * len(ZEROS), 3 * ZERO_VIEWS * len(ZEROS)]
)
async def test_zeros_are_as_many_as_were_asked_at_most(sanic_client: SanicClient, length: int) -> None:
    async def handler(request: Request) -> Sent:
        outlet = PlainOutlet(request, patient())
        await outlet.send_all(sanic_seam.head(request, 200, [("Content-Length", str(length))]))
        left = length
        while left:
            sent = outlet.send_zeros(left)
            assert 0 <= sent <= left
            left -= sent
            if not sent:
                await outlet.writable()
        outlet.close()
        return await sanic_seam.finished(request, 200)

    await sanic_client.start(handler)
    client = await sanic_client.connect()
    client.send(GET)
    assert (await client.answer())[1] == bytes(length)


async def fill(outlet: Outlet) -> None:
    while outlet.send(BODY):
        pass


async def test_a_client_that_does_not_read_is_gone_after_the_deadline(sanic_client: SanicClient) -> None:
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def handler(request: Request) -> Sent:
        outlet = PlainOutlet(request, Pace(0.02, 1))
        await fill(outlet)
        try:
            await outlet.writable()
        except ClientGone:
            ended.set_result("gone")
        outlet.close()
        sanic_seam.close_after(request)
        sanic_seam.transport(request).abort()
        return Sent(0)

    await sanic_client.start(handler)
    client = await sanic_client.connect()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that writes also reads
    client.send(GET)
    async with asyncio.timeout(PATIENCE_S):
        assert await ended == "gone"


async def test_a_client_that_left_is_gone_when_something_is_sent(sanic_client: SanicClient) -> None:
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    left = asyncio.Event()

    async def handler(request: Request) -> Sent:
        outlet = PlainOutlet(request, patient())
        sanic_seam.transport(request).pause_reading()  # so that nobody else notices
        await left.wait()
        try:
            while True:
                if not outlet.send(BODY):
                    await outlet.writable()
        except ClientGone:
            ended.set_result("gone")
        outlet.close()
        sanic_seam.close_after(request)
        sanic_seam.transport(request).abort()
        return Sent(0)

    await sanic_client.start(handler)
    client = await sanic_client.connect()
    client.send(GET)
    await client.writer.drain()
    client.writer.transport.abort()
    left.set()
    async with asyncio.timeout(PATIENCE_S):
        assert await ended == "gone"
