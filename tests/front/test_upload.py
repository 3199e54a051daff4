"""The body of a PUT: every byte in a write of its place, nothing answered before all are confirmed, no slot left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from sanic import Request

from mover.front import sanic_bodies, sanic_seam
from mover.front.errors import RequestError
from mover.front.pace import Pace
from mover.front.ranges import Span
from mover.front.sanic_seam import Sent
from mover.front.upload import Upload
from tests.front.conftest import SanicClient
from tests.harness.waiting import PATIENCE_S
from tests.lane.ends import SLOT_BYTES, Ends, complete, jobs_of, until
from workers.lane.front_lane import FrontLane
from workers.lane.lane_states import LaneLost
from workers.lane.protocol import Flag, Job, Kind, Status
from workers.lane.slots import Owner
from workers.lane.worker_lane import WorkerLane

TRANSFER = 77


def patient() -> Pace:
    return Pace(PATIENCE_S, 1)


def uploading(lane: FrontLane, offset: int) -> Callable[[Request], object]:
    async def handler(request: Request) -> Sent:
        length = sanic_bodies.body_left(request)
        assert length
        status = 200
        try:
            await Upload(lane, request, Span(offset, length), TRANSFER, Flag.MAY_HOLE, patient()).run()
        except (RequestError, LaneLost):
            status = 500
        return await sanic_seam.reply(request, status, [("Content-Length", "0")])

    return handler


def head(length: int, *headers: bytes) -> bytes:
    return b"\r\n".join([b"PUT /x HTTP/1.1", b"Host: x", b"Content-Length: %d" % length, *headers]) + b"\r\n\r\n"


async def serve_writes(worker: WorkerLane, image: bytearray, found: list[Job]) -> None:
    while True:
        for job in await jobs_of(worker):
            assert job.kind is Kind.WRITE
            found.append(job)
            image[job.offset : job.offset + job.length] = worker.slot(job)[: job.length]
            complete(worker, job)


@pytest.mark.parametrize("offset", [0, 1, SLOT_BYTES - 1, SLOT_BYTES])
@pytest.mark.parametrize("length", [1, SLOT_BYTES, SLOT_BYTES + 1, 20 * SLOT_BYTES + 7])
async def test_every_byte_is_written_to_its_place_and_chunks_keep_to_the_images_slots(
    sanic_client: SanicClient, offset: int, length: int
) -> None:
    ends, found = Ends(), list[Job]()
    worker, image = await ends.open(), bytearray(offset + length)
    serving = asyncio.ensure_future(serve_writes(worker, image, found))
    await sanic_client.start(uploading(ends.front, offset))  # type: ignore[arg-type]
    client = await sanic_client.connect()
    body = bytes(1 + at % 251 for at in range(length))
    for _ in range(2):
        client.send(head(length) + body)
        assert (await client.answer())[0].startswith(b"HTTP/1.1 200")
    assert image == bytes(offset) + body
    assert {(job.transfer, job.flags) for job in found} == {(TRANSFER, Flag.MAY_HOLE)}
    assert all(job.offset // SLOT_BYTES == (job.offset + job.length - 1) // SLOT_BYTES for job in found)
    assert (ends.front.slots.used, ends.front.slots._requests) == (0, 0)
    serving.cancel()
    await asyncio.wait([serving])
    ends.close()


async def test_a_client_that_waits_to_be_asked_is_asked_and_may_send_in_pieces(sanic_client: SanicClient) -> None:
    ends, found = Ends(), list[Job]()
    worker, image = await ends.open(), bytearray(3 * SLOT_BYTES)
    serving = asyncio.ensure_future(serve_writes(worker, image, found))
    await sanic_client.start(uploading(ends.front, 0))  # type: ignore[arg-type]
    client = await sanic_client.connect()
    client.send(head(len(image), b"Expect: 100-continue"))
    assert (await client.answer())[0] == b"HTTP/1.1 100 Continue\r\n\r\n"
    for number in range(3):
        client.send(bytes([number + 1]) * SLOT_BYTES)
        await until(lambda number=number: len(found) == number + 1)  # type: ignore[misc]
    assert (await client.answer())[0].startswith(b"HTTP/1.1 200")
    assert image == b"".join(bytes([number + 1]) * SLOT_BYTES for number in range(3))
    serving.cancel()
    await asyncio.wait([serving])
    ends.close()


async def test_nothing_is_answered_before_the_last_write_is_confirmed(sanic_client: SanicClient) -> None:
    ends = Ends()
    worker = await ends.open()
    await sanic_client.start(uploading(ends.front, 0))  # type: ignore[arg-type]
    client = await sanic_client.connect()
    client.send(head(2 * SLOT_BYTES) + bytes(2 * SLOT_BYTES))
    first, second = await jobs_of(worker, 2)
    complete(worker, second)
    answering = asyncio.ensure_future(client.answer())
    await until(lambda: ends.front.in_flight == 1)
    assert not answering.done()
    assert ends.front.slots.owner(first.slot) is Owner.WORKER
    complete(worker, first)
    assert (await answering)[0].startswith(b"HTTP/1.1 200")
    ends.close()


async def test_a_write_that_fails_ends_it_and_what_is_in_flight_is_abandoned(sanic_client: SanicClient) -> None:
    ends = Ends()
    worker = await ends.open()
    await sanic_client.start(uploading(ends.front, 0))  # type: ignore[arg-type]
    client = await sanic_client.connect()
    client.send(head(50 * SLOT_BYTES) + bytes(3 * SLOT_BYTES))
    first, second = await jobs_of(worker, 2)
    complete(worker, first, Status.FAILED, value=28)
    assert (await client.answer())[0].startswith(b"HTTP/1.1 500")
    assert ends.front.slots.owner(second.slot) is Owner.QUARANTINE
    complete(worker, second)
    await until(lambda: ends.front.slots.used == 0)
    assert ends.front.slots._requests == 0
    ends.close()


async def test_what_was_moved_ends_before_the_write_that_failed(sanic_client: SanicClient) -> None:
    """A ticket's `transferred` counts nothing that is not written."""
    ends, uploads = Ends(), list[Upload]()
    worker = await ends.open()

    async def handler(request: Request) -> Sent:
        uploads.append(Upload(ends.front, request, Span(0, 2 * SLOT_BYTES), TRANSFER, Flag.NONE, patient()))
        with pytest.raises(RequestError):
            await uploads[0].run()
        return await sanic_seam.reply(request, 500, [("Content-Length", "0")])

    await sanic_client.start(handler)
    client = await sanic_client.connect()
    client.send(head(2 * SLOT_BYTES) + bytes(2 * SLOT_BYTES))
    first, second = await jobs_of(worker, 2)
    complete(worker, first)
    complete(worker, second, Status.FAILED, value=28)
    await client.answer()
    assert uploads[0].moved == Span(0, SLOT_BYTES)
    ends.close()


@pytest.mark.parametrize("sent", [0, 10, SLOT_BYTES + 10])
@pytest.mark.parametrize("expects", [False, True])
async def test_a_client_that_leaves_leaves_no_slot_and_no_request_behind(
    sanic_client: SanicClient, sent: int, expects: bool
) -> None:
    ends = Ends()
    worker = await ends.open()
    await sanic_client.start(uploading(ends.front, 0))  # type: ignore[arg-type]
    client = await sanic_client.connect()
    client.send(head(3 * SLOT_BYTES, *([b"Expect: 100-continue"] if expects else [])) + bytes(sent))
    await until(lambda: ends.front.slots._requests == 1)
    client.writer.transport.abort()
    await until(lambda: ends.front.slots._requests == 0)
    for job in await jobs_of(worker) if ends.front.in_flight else []:
        complete(worker, job)
    await until(lambda: ends.front.slots.used == 0)
    ends.close()


async def test_a_request_whose_client_left_before_it_was_asked_for_its_body_does_not_count(
    sanic_client: SanicClient,
) -> None:
    """Counted for ever, each would take from the share of all others."""
    ends = Ends()
    await ends.open()
    ended = asyncio.Event()

    async def handler(request: Request) -> Sent:
        upload = Upload(ends.front, request, Span(0, 10), TRANSFER, Flag.NONE, patient())
        sanic_seam.transport(request).abort()
        try:
            await upload.run()
        finally:
            ended.set()
        raise AssertionError

    await sanic_client.start(handler)
    client = await sanic_client.connect()
    client.send(head(10, b"Expect: 100-continue"))
    async with asyncio.timeout(PATIENCE_S):
        await ended.wait()
    assert ends.front.slots._requests == 0
    ends.close()
