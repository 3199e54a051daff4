"""The way of a chunked body past Sanic: exact to the byte, whatever its chunks are cut like, and strict in between."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sanic import Request

from mover.front import sanic_bodies, sanic_seam
from mover.front.chunked_intake import DIRECT_BYTES, SCRATCH_BYTES, ChunkedIntake
from mover.front.chunks import LINE_BYTES, Chunks, NotChunked, Part
from mover.front.sanic_seam import Sent
from tests.front.conftest import SanicClient
from tests.harness.waiting import PATIENCE_S

GET = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"PUT /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


class Rooms:
    """Gives rooms of one size, at once or when asked; what was filled is kept."""

    def __init__(self, room_bytes: int, at_once: bool) -> None:
        self.body = bytearray()
        self.changed = asyncio.Event()
        self._room = bytearray(room_bytes)
        self._at_once = at_once

    def room(self) -> memoryview:
        return memoryview(self._room)

    def filled(self) -> memoryview | None:
        self.body += self._room
        self.changed.set()
        return self.room() if self._at_once else None

    def hungers(self) -> None:
        self.changed.set()

    def ended(self, count: int) -> None:
        self.body += self._room[:count]
        self.changed.set()


def receiving(room_bytes: int, at_once: bool, bodies: list[bytes]) -> object:
    async def handler(request: Request) -> Sent:
        status = 200
        if sanic_bodies.body_left(request) is None:
            rooms = Rooms(room_bytes, at_once)
            intake = ChunkedIntake(request, rooms)
            intake.begin()
            async with asyncio.timeout(PATIENCE_S):
                while not intake.over and intake.fault is None:
                    if intake.hungry:
                        intake.give(rooms.room())
                    else:
                        rooms.changed.clear()
                        await rooms.changed.wait()
            intake.end()
            bodies.append(bytes(rooms.body))
            status = 200 if intake.fault is None else intake.fault.status
        return await sanic_seam.reply(request, status, [("Content-Length", "3")], request.method.encode()[:3])

    return handler


def chunked(body: bytes, lengths: list[int], last: bytes = b"0\r\n\r\n") -> bytes:
    """The body in chunks of these lengths, over and over."""
    parts, at, number = [], 0, 0
    while at < len(body):
        piece = body[at : at + lengths[number % len(lengths)]]
        parts.append(b"%x\r\n%b\r\n" % (len(piece), piece))
        at, number = at + len(piece), number + 1
    return HEAD + b"".join(parts) + last


def noise(length: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(length)


CUTS = [
    [1],
    [7, 1, 4000],
    [DIRECT_BYTES - 1, DIRECT_BYTES, DIRECT_BYTES + 1],
    [SCRATCH_BYTES, 65536],
    [1 << 20, 3, 100_000],
]


@pytest.mark.parametrize("at_once", [False, True], ids=["waits", "at once"])
@pytest.mark.parametrize("room_bytes", [1000, 65536, 1 << 20])
async def test_chunked_bodies_and_requests_that_come_in_one_go_are_told_apart_to_the_byte(
    sanic_client: SanicClient, room_bytes: int, at_once: bool
) -> None:
    """Pipelined, with every cut, with extensions and trailers; what follows is the next request."""
    found: list[bytes] = []
    await sanic_client.start(receiving(room_bytes, at_once, found))  # type: ignore[arg-type]
    client = await sanic_client.connect()
    bodies = []
    for number, lengths in enumerate(CUTS):
        body = noise(3000 if lengths == [1] else 400_000 + number, number)
        last = b"0;last\r\nX-Sum: 1\r\n\r\n" if number % 2 else b"000\r\n\r\n"
        bodies.append(body)
        client.send(chunked(body, lengths, last) + GET)
    for _ in bodies:
        assert (await client.answer())[1] == b"PUT"
        assert (await client.answer())[1] == b"GET"
    assert found == bodies


async def test_a_chunked_body_that_comes_byte_by_byte_is_whole_and_an_empty_one_is_empty(
    sanic_client: SanicClient,
) -> None:
    found: list[bytes] = []
    await sanic_client.start(receiving(7, True, found))  # type: ignore[arg-type]
    client = await sanic_client.connect()
    for byte in chunked(b"0123456789", [3]) + GET + chunked(b"", [1]) + GET:
        client.send(bytes([byte]))
        await client.writer.drain()
        await asyncio.sleep(0)
    for method in (b"PUT", b"GET", b"PUT", b"GET"):
        assert (await client.answer())[1] == method
    assert found == [b"0123456789", b""]


@pytest.mark.parametrize(
    "body",
    [
        b"-1\r\nx\r\n",
        b"0x1\r\nx\r\n",
        b"1\nx\r\n",
        b"1\r\nxy\r\n",
        b"1 1\r\nx\r\n",
        b"\r\n",
        b"+1\r\nx\r\n",
        b"1_0\r\n",
        b"f" * 16 + b"\r\n",
        b"1;" + b"e" * 2000 + b"\r\n",
        b"0\r\nno trailer\r\n\r\n",
        b"0\r\n" + b"a: b\r\n" * 3000,
        b"\xef\xbc\x91\r\nx\r\n",  # a full-width 1
    ],
)
async def test_what_is_no_chunked_body_is_refused_and_ends_the_connection(
    sanic_client: SanicClient, body: bytes
) -> None:
    """Whatever a proxy before us may have made of it, no byte of it is taken for a request."""
    found: list[bytes] = []
    await sanic_client.start(receiving(1000, True, found))  # type: ignore[arg-type]
    client = await sanic_client.connect()
    client.send(HEAD + body + GET)
    head, _ = await client.answer()
    assert head.startswith(b"HTTP/1.1 400")
    assert b"connection: close" in head.lower()
    assert b"HTTP" not in await client.rest()


async def test_a_client_that_leaves_in_the_middle_of_its_chunks_cancels_its_request(sanic_client: SanicClient) -> None:
    ended = asyncio.Event()

    async def handler(request: Request) -> Sent:
        rooms = Rooms(1000, True)
        intake = ChunkedIntake(request, rooms)
        intake.begin()
        if intake.hungry:
            intake.give(rooms.room())
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError("not reached")

    await sanic_client.start(handler)
    client = await sanic_client.connect()
    client.send(HEAD + b"5\r\nab")
    await client.writer.drain()
    client.close()
    async with asyncio.timeout(PATIENCE_S):
        await ended.wait()


def over(chunks: Chunks) -> bool:
    return chunks.part is Part.END


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.binary(max_size=200), st.data())
def test_however_a_body_is_cut_on_its_way_its_bytes_are_the_same(
    lengths: list[int], body: bytes, data: st.DataObject
) -> None:
    chunks, found = Chunks(), bytearray()
    sent = chunked(body, lengths).removeprefix(HEAD) + b"next"
    at = 0
    while not over(chunks):
        view = memoryview(sent)[at : at + data.draw(st.integers(1, 50))]
        while view and not over(chunks):
            if chunks.part is Part.DATA:
                count = min(len(view), chunks.left)
                found += view[:count]
                chunks.took(count)
            else:
                count = chunks.read_line(view)
            view, at = view[count:], at + count
    assert (bytes(found), sent[at:]) == (body, b"next")


def test_a_line_without_an_end_is_refused_in_time() -> None:
    chunks = Chunks()
    for _ in range(LINE_BYTES - 1):
        chunks.read_line(memoryview(b"1"))
    with pytest.raises(NotChunked):
        chunks.read_line(memoryview(b"1"))
