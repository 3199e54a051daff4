"""A raw file through a real worker: killed while it writes, replaced, cut, and gone; what flushes then say."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from config.export import Export
from config.settings import WorkerSettings
from mover.front.errors import job_failed
from tests.harness.waiting import PATIENCE_S
from tests.image.process import MIB, Process, working
from workers.lane import lost_format
from workers.lane.lane_states import LaneLost, LaneState
from workers.lane.protocol import Completion, Kind, Status

pytestmark = pytest.mark.usefixtures("loop")

TRANSFER = 7


@pytest.fixture
def file(room: Path) -> Path:
    path = room / "disk.raw"
    path.write_bytes(bytes(16 * MIB))
    return path


def raw(path: Path) -> Export:
    return Export("file", path=str(path))


async def lost_ranges(process: Process) -> list[tuple[int, int]]:
    completion, data = await process.filled(Kind.LOST, 0, 0, transfer=TRANSFER)
    return lost_format.unpack(memoryview(data)[: completion.value])[1]


async def test_writes_of_a_killed_worker_are_repeated_and_nobody_notices(file: Path) -> None:
    async with working(raw(file)) as process:
        writes = []
        for at in range(16):
            writes.append(asyncio.ensure_future(process.do(Kind.WRITE, at * MIB, data=bytes([at + 1]) * MIB)))
            await asyncio.sleep(0)
        process.kill()
        process.start()
        assert {completion.status for completion in await asyncio.gather(*writes)} == {Status.OK}
        assert (await process.do(Kind.FLUSH)).status is Status.OK
        assert process.lane.replays == 1
    assert file.read_bytes() == b"".join(bytes([at + 1]) * MIB for at in range(16))


async def test_writes_to_a_file_that_was_replaced_are_told_as_lost_once(file: Path) -> None:
    async with working(raw(file)) as process:
        await process.do(Kind.WRITE, 4096, data=b"x" * 4096, transfer=TRANSFER)
        other = file.parent / "other"
        other.write_bytes(bytes(16 * MIB))
        other.rename(file)
        flushed = await process.do(Kind.FLUSH, transfer=TRANSFER)
        assert (flushed.status, flushed.value) == (Status.FAILED, errno.ESTALE)
        while (flushed := await process.do(Kind.FLUSH, transfer=TRANSFER)).status is Status.FAILED:
            await asyncio.sleep(0.01)  # until it has looked: the flushes of the old file go on failing
        assert flushed.status is Status.LOST
        assert await lost_ranges(process) == [(4096, 4096)]
        await process.do(Kind.WRITE, 4096, data=b"y" * 4096, transfer=TRANSFER)
        assert (await process.do(Kind.FLUSH, transfer=TRANSFER)).status is Status.OK
    assert file.read_bytes()[4096:8192] == b"y" * 4096


async def test_what_a_failed_sync_covered_is_told_as_lost_though_the_next_one_succeeds(file: Path) -> None:
    """The kernel tells of pages that it could not write once. Here the file was not at its path for a moment."""
    kept = file.parent / "kept"
    os.link(file, kept)
    async with working(raw(file)) as process:
        await process.do(Kind.WRITE, 4096, data=b"x" * 4096, transfer=TRANSFER)
        file.unlink()
        assert (await process.do(Kind.FLUSH, transfer=TRANSFER)).status is Status.FAILED
        os.link(kept, file)
        assert (await process.do(Kind.FLUSH, transfer=TRANSFER)).status is Status.LOST
        assert await lost_ranges(process) == [(4096, 4096)]


async def test_a_lane_that_knows_another_size_is_closed_and_a_new_one_knows_the_new(file: Path) -> None:
    async with working(raw(file)) as process:
        os.truncate(file, 32 * MIB)
        async with asyncio.timeout(PATIENCE_S):
            while process.lane.state is not LaneState.CLOSED:
                await asyncio.sleep(0.01)
        with pytest.raises(LaneLost, match="the image is another one now"):
            process.lane.submit(Kind.FLUSH)
        process.lane = process.new_lane()
        process.attach(process.lane)
        assert (await process.lane.opened()).size_bytes == 32 * MIB
        assert await process.read(20 * MIB, 4096) == bytes(4096)


async def test_a_missing_file_is_refused_with_the_reason(room: Path) -> None:
    with pytest.raises(LaneLost, match="No such file or directory"):
        async with working(raw(room / "missing")):
            raise AssertionError("it is not there")


async def gone(process: Process) -> Completion:
    """The completion of a write that waited until the image was given up."""
    while True:
        completion = await process.do(Kind.WRITE, 0, data=b"x" * 4096)
        if completion.status is Status.GONE:
            return completion
        assert completion.status is Status.OK
        await asyncio.sleep(0.01)


async def test_jobs_of_a_file_that_does_not_come_back_hear_that_it_is_a_file(file: Path) -> None:
    async with working(raw(file), WorkerSettings(reconnect_s=0.2, settle_s=0.2)) as process:
        file.unlink()
        completion = await gone(process)
        assert completion.value == errno.ENOENT
        assert job_failed(completion, "write", 0, 4096).message.endswith("the file is gone")
