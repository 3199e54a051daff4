"""Sessions of whole files: each is ended, whenever its client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import SimpleNamespace
from typing import cast

import pytest

from mover.front.visit import Visit
from mover.front.whole_files import OpenFile, reading, replacing
from tests.lane.ends import Ends, complete, jobs_of, until
from workers.lane.protocol import Kind, Status

Session = AbstractAsyncContextManager[OpenFile]
NUMBER = 17

KINDS = pytest.mark.parametrize(
    ("use", "kind"), [(reading, Kind.OPEN), (lambda visit: replacing(visit, 100), Kind.BEGIN)], ids=["read", "replace"]
)


@asynccontextmanager
async def waiting(use: Callable[[Visit], Session], ends: Ends) -> AsyncIterator[asyncio.Task[None]]:
    """A request that has asked for a session and waits for it."""
    visit = cast(Visit, SimpleNamespace(lane=ends.front, ticket=SimpleNamespace(transfer=1)))

    async def request() -> None:
        async with use(visit):
            raise AssertionError("nobody is there to use it")

    task = asyncio.ensure_future(request())
    yield task
    await asyncio.wait([task])
    assert task.cancelled()


@KINDS
async def test_a_client_that_leaves_while_its_session_begins_leaves_none(
    use: Callable[[Visit], Session], kind: Kind
) -> None:
    """The session that comes when nobody waits for it any more is ended at once, not with the lane."""
    ends = Ends()
    worker = await ends.open()
    async with waiting(use, ends) as task:
        (job,) = await jobs_of(worker)
        assert job.kind is kind
        task.cancel()
    complete(worker, job, value=NUMBER)
    (after,) = await jobs_of(worker)
    assert (after.kind, after.offset) == (Kind.ROLLBACK, NUMBER)
    complete(worker, after)
    await until(lambda: ends.front.in_flight == 0)
    ends.close()


@KINDS
async def test_a_session_that_was_refused_when_its_client_had_left_is_no_session(
    use: Callable[[Visit], Session], kind: Kind
) -> None:
    """There is nothing to end."""
    ends = Ends()
    worker = await ends.open()
    async with waiting(use, ends) as task:
        (job,) = await jobs_of(worker)
        task.cancel()
    complete(worker, job, Status.FAILED, value=2)
    await until(lambda: ends.front.in_flight == 0)
    assert not list(worker.jobs())
    ends.close()


@KINDS
async def test_a_lane_that_closes_takes_the_session_with_it(use: Callable[[Visit], Session], kind: Kind) -> None:
    """Nobody waits, and nothing is asked of a lane that is closed."""
    ends = Ends()
    worker = await ends.open()
    async with waiting(use, ends) as task:
        await jobs_of(worker)
        task.cancel()
    ends.close()
