"""A store's worker, spoken to as a front end does, and what lies in its directories."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from config.export import Export
from config.store_settings import FileStore, Store
from tests.harness.waiting import PATIENCE_S
from tests.image.process import SETTINGS, Process
from workers.lane import store_format
from workers.lane.front_lane import FrontLane, InFlight
from workers.lane.protocol import Completion, Flag, Kind, Status
from workers.lane.store_format import Answer, Publish, Published, Question, Receive, Receiving, Refused, Why

MIB = 1024 * 1024
IMAGE = "6f1a4c1e-8f0e-4b53-9c6c-0d5a5f3a1e11"


def store_in(*directories: Path | str, **settings: Any) -> FileStore:
    return FileStore(id="file", directories=[str(directory) for directory in directories], **settings)


class Shop:
    """The worker of one image of a store; `image` may be empty, for the store itself."""

    def __init__(self, process: Process, image: str) -> None:
        self.process = process
        self.image = image

    @property
    def lane(self) -> FrontLane:
        return self.process.lane

    async def begin_asking(self, question: Question, lane: FrontLane | None = None) -> InFlight:
        """A question that is under way; its slot is in the job."""
        lane = lane or self.lane
        holder = lane.slots.enter()
        slot = await lane.take_slot(holder)
        lane.slots.leave(holder)
        store_format.ask(lane.views[slot], question)
        return lane.submit(Kind.STORE, slot=slot)

    async def ask(self, question: Question, lane: FrontLane | None = None) -> Answer:
        lane = lane or self.lane
        async with asyncio.timeout(PATIENCE_S):
            in_flight = await self.begin_asking(question, lane)
            completion = await in_flight.done
            assert completion.status is Status.OK, completion
            answer = store_format.answer_in(lane.views[in_flight.job.slot])
            lane.give_back(in_flight.job.slot)
            return answer

    async def receive(self, **fields: Any) -> int:
        answer = await self.ask(Receive(self.image, "sha512", **fields))
        assert isinstance(answer, Receiving), answer
        return answer.session

    async def begin_writing(self, session: int, offset: int, data: bytes) -> InFlight:
        holder = self.lane.slots.enter()
        slot = await self.lane.take_slot(holder)
        self.lane.slots.leave(holder)
        self.lane.views[slot][: len(data)] = data
        return self.lane.submit(Kind.WRITE, offset, len(data), slot=slot, context=session)

    async def write(self, session: int, data: bytes, offset: int = 0) -> list[Completion]:
        """All of `data` in slots, as many under way at once as there are."""
        in_flight = []

        async def ended(one: InFlight) -> Completion:
            completion = await one.done
            self.lane.give_back(one.job.slot)
            return completion

        async with asyncio.timeout(PATIENCE_S):
            for at in range(0, len(data), MIB):
                one = await self.begin_writing(session, offset + at, data[at : at + MIB])
                in_flight.append(asyncio.ensure_future(ended(one)))
            return await asyncio.gather(*in_flight)

    async def roll_back(self, session: int, keep: bool = False) -> Completion:
        async with asyncio.timeout(PATIENCE_S):
            return await self.lane.run(Kind.ROLLBACK, session, flags=Flag.KEEP if keep else Flag.NONE)

    async def put(self, data: bytes, size: int | None = None, **publish: Any) -> Answer:
        """A whole upload; what Publish was answered."""
        session = await self.receive(size=size)
        completions = await self.write(session, data)
        assert {completion.status for completion in completions} <= {Status.OK}, completions
        return await self.ask(Publish(session, **publish))


@asynccontextmanager
async def shop(store: Store, image: str = IMAGE) -> AsyncIterator[Shop]:
    process = Process(Export("store", name=store.id, path=image), SETTINGS, store)
    process.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            await process.lane.opened()
        yield Shop(process, image)
    finally:
        process.close()


def listing(directory: Path) -> list[str]:
    """Everything in it, hidden or not."""
    return sorted(os.listdir(directory))


def assert_published(answer: Answer, file: Path, data: bytes) -> None:
    """It is there, with these bytes, and the answer says what they are."""
    assert isinstance(answer, Published), answer
    assert answer.uri == f"file://{file}"
    assert answer.size == len(data)
    assert file.read_bytes() == data
    assert answer.md5 == hashlib.md5(data).hexdigest()
    assert answer.hash_value == hashlib.sha512(data).hexdigest()


def assert_refused(answer: Answer, why: Why) -> Refused:
    assert isinstance(answer, Refused), answer
    assert answer.why is why, answer
    return answer
