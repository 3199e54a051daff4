"""A source at a URL as an export: a real worker process reads it into slots."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from config.export import Export
from config.url_rules import UrlRules
from tests.harness.sources import Sources, sources
from tests.harness.waiting import PATIENCE_S
from tests.image.process import SETTINGS, Process
from workers.lane.lane_states import LaneLost
from workers.lane.protocol import MOST_FILE_BYTES, ImageFacts, Kind, Status

MIB = 1024 * 1024
DATA = random.Random(2).randbytes(24 * MIB + 17)


@pytest.fixture(scope="module")
def server() -> Iterator[Sources]:
    with sources() as server:
        yield server


@asynccontextmanager
async def worker(server: Sources, url: str, version: str = "") -> AsyncIterator[Process]:
    rules = UrlRules(("127.0.0.1",), (server.port,))
    process = Process(Export("http", path=url, version=version), SETTINGS, urls=rules)
    process.start()
    try:
        yield process
    finally:
        process.close()


async def opened(process: Process) -> ImageFacts:
    async with asyncio.timeout(PATIENCE_S):
        await process.lane.opened()
    assert process.lane.image is not None
    return process.lane.image


async def refusal(process: Process) -> str:
    try:
        await opened(process)
    except LaneLost as lost:
        return lost.reason  # and not its traceback, which would keep the lane
    raise AssertionError("the lane was opened")


async def test_a_url_is_read_in_ranges_straight_into_slots_and_again_after_the_worker_was_killed(
    server: Sources,
) -> None:
    url = server.put("/disk.raw", DATA)
    async with worker(server, f"{url}?signature=secret") as process:
        facts = await opened(process)
        assert (facts.size_bytes, facts.version, facts.read_only) == (len(DATA), '"1"', True)
        assert not facts.sequential

        async def read(at: int) -> bytes:
            return await process.read(at, min(MIB, len(DATA) - at))

        async def whole() -> bytes:
            return b"".join(await asyncio.gather(*map(read, range(0, len(DATA), MIB))))

        assert await whole() == DATA
        reading = asyncio.ensure_future(whole())
        process.kill()
        process.start()
        async with asyncio.timeout(PATIENCE_S):
            assert await reading == DATA
        assert (await process.do(Kind.ZERO, 0, 1000)).value == errno.EROFS
        assert (await process.filled(Kind.READ, len(DATA), 1))[0].status is Status.REFUSED
    assert "secret" not in Export("http", path=f"{url}?signature=secret").key


async def test_without_ranges_readers_go_in_order_each_by_itself_and_meet_the_end(server: Sources) -> None:
    data = DATA[: 5 * MIB + 1000]
    for chunked in (False, True):
        url = server.put("/plain", data, ranges=False, chunked=chunked)
        async with worker(server, url) as process:
            facts = await opened(process)
            assert (facts.sequential, facts.unsized) == (True, chunked)
            assert facts.size_bytes == (MOST_FILE_BYTES if chunked else len(data))
            first, second = b"", b""
            for at in range(0, len(data), MIB):
                length = MIB if chunked else min(MIB, len(data) - at)
                completion, found = await process.filled(Kind.READ, at, length)
                first += found[: completion.covered]
                if not at:  # another one begins, and overtakes
                    second += await process.read(0, MIB)
                    second += await process.read(MIB, MIB)
            assert first == data
            assert second == data[: 2 * MIB]
            completion, _ = await process.filled(Kind.READ, 3 * MIB, MIB)
            assert (completion.status, completion.value) == (Status.FAILED, errno.ESPIPE)


async def test_a_source_that_changes_fails_all_who_read_it(server: Sources) -> None:
    url = server.put("/changing", DATA)
    async with worker(server, url) as process:
        await opened(process)
        assert await process.read(0, MIB) == DATA[:MIB]
        server.put("/changing", DATA[::-1], etag='"2"')
        completion, _ = await process.filled(Kind.READ, MIB, MIB)
        assert (completion.status, completion.value) == (Status.FAILED, errno.ESTALE)
        async with asyncio.timeout(PATIENCE_S):
            while process.lane.lost is None:
                await asyncio.sleep(0.01)
    async with worker(server, url, version='"1"') as process:
        assert await refusal(process) == "the source at the URL has changed"
    async with worker(server, url, version='"2"') as process:
        assert (await opened(process)).version == '"2"'


@pytest.mark.parametrize(
    ("path", "why"),
    [("/none", "has nothing at the URL"), ("@10.0.0.1/", "a user or a password"), ("", "has nothing at the URL")],
)
async def test_what_cannot_be_read_is_refused_with_the_reason(server: Sources, path: str, why: str) -> None:
    async with worker(server, server.url(path)) as process:
        assert why in await refusal(process)
