"""The way of a request body past Sanic: exact to the byte, with whatever stands before and after it."""

from __future__ import annotations

import asyncio

import pytest
from sanic import Request

from mover.front import sanic_bodies, sanic_seam
from mover.front.intake import Intake
from mover.front.sanic_seam import Sent
from tests.front.conftest import SanicClient
from tests.harness.waiting import PATIENCE_S

GET = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"


class Rooms:
    """Gives rooms of one size, at once or when asked; what was filled is kept."""

    def __init__(self, room_bytes: int, length: int, at_once: bool) -> None:
        self.body = bytearray()
        self.full = asyncio.Event()
        self.length = length
        self._room = bytearray(room_bytes)
        self._at_once = at_once

    def room(self) -> memoryview:
        """Perhaps longer than what is left of the body, which must not go further than it does."""
        return memoryview(self._room)

    def filled(self) -> memoryview | None:
        self.body += self.room()[: self.length - len(self.body)]
        self.full.set()
        return self.room() if self._at_once and len(self.body) < self.length else None


def receiving(room_bytes: int, at_once: bool, bodies: list[bytes]) -> object:
    async def handler(request: Request) -> Sent:
        length = sanic_bodies.body_left(request)
        assert length is not None
        if length:
            rooms = Rooms(room_bytes, length, at_once)
            intake = Intake(request, length, rooms)
            intake.begin()
            async with asyncio.timeout(PATIENCE_S):
                while intake.left:
                    if intake.hungry:
                        intake.give(rooms.room())
                    else:
                        rooms.full.clear()
                        await rooms.full.wait()
            intake.end()
            bodies.append(bytes(rooms.body))
        return await sanic_seam.reply(request, 200, [("Content-Length", "3")], request.method.encode()[:3])

    return handler


def put(body: bytes) -> bytes:
    return b"PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def pattern(length: int, seed: int) -> bytes:
    return (bytes((seed + at) % 251 for at in range(1000)) * (length // 1000 + 1))[:length]


@pytest.mark.parametrize("at_once", [False, True], ids=["waits", "at once"])
@pytest.mark.parametrize("room_bytes", [1000, 65536, 1 << 20])
async def test_bodies_and_requests_that_come_in_one_go_are_told_apart_to_the_byte(
    sanic_client: SanicClient, room_bytes: int, at_once: bool
) -> None:
    """Pipelined: the body ends in Sanic's buffer, in the socket, or in both; what follows is the next request."""
    found: list[bytes] = []
    await sanic_client.start(receiving(room_bytes, at_once, found))  # type: ignore[arg-type]
    client = await sanic_client.connect()
    lengths = [1, 999, 1000, 1001, 65536, 70_000] if room_bytes == 1000 else [1, 65536, 65537, 1_300_000]
    bodies = [pattern(length, number) for number, length in enumerate(lengths)]
    client.send(b"".join(put(body) + GET for body in bodies))
    for _ in bodies:
        assert (await client.answer())[1] == b"PUT"
        assert (await client.answer())[1] == b"GET"
    assert found == bodies


async def test_a_body_that_comes_byte_by_byte_is_whole(sanic_client: SanicClient) -> None:
    found: list[bytes] = []
    await sanic_client.start(receiving(7, True, found))  # type: ignore[arg-type]
    client = await sanic_client.connect()
    for byte in put(b"0123456789") + GET:
        client.send(bytes([byte]))
        await client.writer.drain()
        await asyncio.sleep(0)
    assert (await client.answer())[1] == b"PUT"
    assert (await client.answer())[1] == b"GET"
    assert found == [b"0123456789"]


async def test_a_client_that_leaves_in_the_middle_cancels_its_request(sanic_client: SanicClient) -> None:
    ended = asyncio.Event()

    async def handler(request: Request) -> Sent:
        rooms = Rooms(1000, 5000, True)
        intake = Intake(request, 5000, rooms)
        intake.begin()
        intake.give(rooms.room())
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    await sanic_client.start(handler)
    client = await sanic_client.connect()
    client.send(put(b"x" * 5000)[:-1000])
    client.writer.write_eof()
    async with asyncio.timeout(PATIENCE_S):
        await ended.wait()


async def test_what_was_not_taken_of_a_body_is_sanics_again(sanic_client: SanicClient) -> None:
    async def handler(request: Request) -> Sent:
        if request.method == "PUT":
            rooms = Rooms(1000, 3000, False)
            intake = Intake(request, 3000, rooms)
            intake.begin()
            intake.give(rooms.room())
            await rooms.full.wait()
            intake.end()
            assert sanic_bodies.body_left(request) == 2000
            await sanic_bodies.settle_body(request)
        return await sanic_seam.reply(request, 200, [("Content-Length", "3")], request.method.encode()[:3])

    await sanic_client.start(handler)
    client = await sanic_client.connect()
    client.send(put(b"x" * 3000) + GET)
    assert (await client.answer())[1] == b"PUT"
    assert (await client.answer())[1] == b"GET"


async def test_nothing_is_read_while_there_is_no_room(sanic_client: SanicClient) -> None:
    """Else a slow export would fill the memory with its clients' bodies."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    length = 32 << 20

    async def handler(request: Request) -> Sent:
        rooms = Rooms(length, length, False)
        intake = Intake(request, length, rooms)
        intake.begin()
        begun.set()
        await go_on.wait()
        assert intake.left == length
        intake.give(rooms.room())
        await rooms.full.wait()
        intake.end()
        return await sanic_seam.reply(request, 200, [("Content-Length", "2")], b"ok")

    await sanic_client.start(handler)
    client = await sanic_client.connect()
    client.send(put(bytes(length)))
    await begun.wait()
    sending = asyncio.ensure_future(client.writer.drain())
    for _ in range(100):
        await asyncio.sleep(0)
    assert not sending.done()
    go_on.set()
    assert (await client.answer())[1] == b"ok"
    await sending
