"""The body of a GET against an image that is spelled out: any zeros, any client, slots wanted by others any time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mover.front import foresight
from mover.front.download import Download
from mover.front.errors import ClientGone, RequestError
from mover.front.outlet import Outlet
from mover.front.ranges import Span
from tests.harness.waiting import PATIENCE_S
from tests.lane.ends import SLOT_BYTES, Ends, readable, until
from workers.image.extents import ExtentBuilder
from workers.lane.extents_format import RECORD, ZERO
from workers.lane.front_lane import FrontLane
from workers.lane.lane_states import LaneLost
from workers.lane.protocol import Completion, Job, Kind, Status
from workers.lane.worker_lane import WorkerLane

IMAGE_BYTES = 16 * SLOT_BYTES
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.fixture(autouse=True, scope="module")
def _small_windows() -> Iterator[None]:
    """Windows that an image of sixteen slots has several of."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foresight, "WINDOW_BYTES", 3 * SLOT_BYTES + 100)
        patch.setattr(foresight, "LEAST_ZEROS_BYTES", 64)
        yield


class Client(Outlet):
    """Takes what chance lets it; now and then others need the slots, or somebody writes, while it does not read."""

    def __init__(self, chance: random.Random, lane: FrontLane, worker: FakeWorker) -> None:
        self.received = bytearray()
        self.zeros = self.counted = 0
        self._chance = chance
        self._lane = lane
        self._worker = worker
        self._full = False

    async def begin(self) -> None:
        pass

    def send(self, *views: bytes | memoryview) -> int:
        data = b"".join(views)
        self._full = self._full or self._chance.random() < 0.3
        taken = data[: 0 if self._full else self._chance.choice([1, 7, len(data) // 2 + 1, len(data)])]
        self.received += taken
        return len(taken)

    def send_zeros(self, length: int) -> int:
        taken = self.send(bytes(length))
        self.zeros += taken
        return taken

    async def _room(self) -> None:
        raise AssertionError("`writable` is another one here")

    async def writable(self) -> None:
        self._full = False
        await asyncio.sleep(0)
        if self._chance.random() < 0.3:
            for guest in list(self._lane._stalls._guests):
                guest.surrender()
        if self._chance.random() < 0.1:
            self._worker.write_somewhere()

    def moved(self, count: int) -> None:
        self.counted += count

    async def finish(self) -> None:
        pass

    def close(self) -> None:
        pass


class FakeWorker:
    """Answers jobs from `image` in an order of chance; what reads as zeros is told as zeros, in extents."""

    def __init__(self, lane: WorkerLane, image: bytearray, chance: random.Random) -> None:
        self.lane = lane
        self.image = image
        self.chance = chance
        self.writes = 0
        self.reads: list[Job] = []
        self.fails: set[Kind] = set()
        self._waiting: list[Job] = []

    def write_somewhere(self) -> None:
        """Somebody's write is confirmed: the same bytes again, so that every answer is right or wrong for sure."""
        self.writes += 1
        self.lane.note_writes(self.writes)

    async def run(self) -> None:
        while True:
            if not self._waiting:
                await readable(self.lane.doorbell)
            self._waiting += self.lane.jobs()
            if self._waiting and self.chance.random() < 0.8:
                self.answer(self._waiting.pop(self.chance.randrange(len(self._waiting))))
            await asyncio.sleep(0)

    def answer(self, job: Job) -> None:
        slot = self.lane.slot(job)
        completion = Completion(job.number, Status.OK, job.length)
        if job.kind in self.fails:
            completion = Completion(job.number, Status.FAILED, 0, 5)
        elif job.kind is Kind.READ:
            self.reads.append(job)
            slot[: job.length] = self.image[job.offset : job.offset + job.length]
        else:
            completion = self.extents(job, slot)
        self.lane.publish(job, completion)
        self.lane.ring()

    def extents(self, job: Job, slot: memoryview) -> Completion:
        """Perhaps of less than was asked."""
        builder = ExtentBuilder(slot)
        length = self.chance.choice([job.length, self.chance.randint(1, job.length)])
        at = job.offset
        while at < job.offset + length:
            zero = not self.image[at]
            run = next(
                (more for more in range(job.offset + length - at) if (not self.image[at + more]) is not zero),
                job.offset + length - at,
            )
            builder.add(run, ZERO if zero else 0)
            at += run
        return Completion(job.number, Status.OK, builder.finish(), builder.filled)


def image_of(runs: list[tuple[int, bool]]) -> bytearray:
    """Runs of zeros and of data, the last one to the end."""
    image = bytearray()
    for length, zeros in runs:
        image += bytes(length) if zeros else bytes(1 + (len(image) + at) % 255 for at in range(length))
    rest = IMAGE_BYTES - len(image)
    return (image + bytearray(1 + at % 255 for at in range(max(rest, 0))))[:IMAGE_BYTES]


class Stage:
    """A lane, its worker and a client, for one download."""

    def __init__(self, image: bytearray, chance: random.Random, slots: int = 4) -> None:
        self.ends = Ends(slots=slots, request_slots=3)
        self.image = image
        self.chance = chance

    async def __aenter__(self) -> Stage:
        lane = await self.ends.open()
        self.worker = FakeWorker(lane, self.image, self.chance)
        self.client = Client(self.chance, self.ends.front, self.worker)
        self._running = asyncio.ensure_future(self.worker.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.ends.front.lost is None:
            await until(lambda: self.ends.front.slots.used == 0)
            assert self.ends.front.slots._requests == 0
        self._running.cancel()
        await asyncio.wait([self._running])
        self.ends.close()

    async def get(self, span: Span) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await Download(self.ends.front, self.client, span, HEAD).run()


RUNS = st.lists(
    st.tuples(st.sampled_from([1, 63, 64, 65, 1000, SLOT_BYTES, SLOT_BYTES + 1, 5 * SLOT_BYTES]), st.booleans())
)


@settings(max_examples=60)
@given(
    runs=RUNS,
    start=st.integers(0, IMAGE_BYTES - 1),
    length=st.integers(1, IMAGE_BYTES),
    slots=st.integers(1, 5),
    seed=st.integers(0, 2**32),
)
def test_the_client_gets_the_images_bytes_and_every_slot_comes_back(
    runs: list[tuple[int, bool]], start: int, length: int, slots: int, seed: int
) -> None:
    async def run() -> None:
        span = Span(start, min(length, IMAGE_BYTES - start))
        async with Stage(image_of(runs), random.Random(seed), slots) as stage:
            await stage.get(span)
            assert stage.client.received == HEAD + stage.image[span.offset : span.offset + span.length]
            assert stage.client.counted == span.length

    asyncio.run(run())


async def test_zeros_that_are_known_are_not_read() -> None:
    image = image_of([(SLOT_BYTES, False), (12 * SLOT_BYTES, True), (3 * SLOT_BYTES, False)])
    async with Stage(image, random.Random(1)) as stage:

        async def writable() -> None:
            stage.client._full = False
            await asyncio.sleep(0)

        stage.client.writable = writable  # type: ignore[method-assign]
        await stage.get(Span(0, IMAGE_BYTES))
        assert stage.client.received == HEAD + image
        assert stage.client.zeros == 12 * SLOT_BYTES
        assert all(any(image[job.offset : job.offset + job.length]) for job in stage.worker.reads)


async def test_zeros_that_somebody_wrote_over_meanwhile_are_read() -> None:
    """Told as zeros, then written through Mover and confirmed: what is sent after that has the new bytes."""
    async with Stage(bytearray(IMAGE_BYTES), random.Random(3)) as stage:

        async def writable() -> None:
            stage.client._full = False
            await asyncio.sleep(0)
            if stage.client.zeros > 100 and not stage.worker.writes:
                marks.append(len(stage.client.received) - len(HEAD))
                stage.image[:] = b"\xaa" * IMAGE_BYTES
                stage.worker.write_somewhere()

        marks: list[int] = []
        stage.client.writable = writable  # type: ignore[method-assign]
        await stage.get(Span(0, IMAGE_BYTES))
        (mark,) = marks
        assert stage.client.received[len(HEAD) :] == bytes(mark) + b"\xaa" * (IMAGE_BYTES - mark)


@pytest.mark.parametrize("answer", ["fails", "too long", "too short", "garbage"])
async def test_extents_that_are_none_make_everything_data(answer: str) -> None:
    image = image_of([(SLOT_BYTES, False), (12 * SLOT_BYTES, True)])
    async with Stage(image, random.Random(5)) as stage:

        def broken(job: Job, slot: memoryview) -> Completion:
            length = job.length * 2 if answer == "too long" else job.length // 2
            RECORD.pack_into(slot, 0, length, ZERO if answer != "garbage" else 0xFF)
            return Completion(job.number, Status.OK, job.length, RECORD.size)

        stage.worker.extents = broken  # type: ignore[method-assign]
        stage.worker.fails = {Kind.EXTENTS} if answer == "fails" else set()
        await stage.get(Span(0, IMAGE_BYTES))
        assert stage.client.received == HEAD + image
        assert stage.client.zeros == 0


async def test_a_read_that_fails_ends_it_with_nothing_sent_of_what_failed() -> None:
    async with Stage(image_of([]), random.Random(7)) as stage:
        stage.worker.fails = {Kind.READ}
        with pytest.raises(RequestError):
            await stage.get(Span(0, IMAGE_BYTES))
        assert stage.client.received == b""


async def test_a_client_that_leaves_leaves_no_slot_behind() -> None:
    async with Stage(image_of([]), random.Random(9)) as stage:

        async def gone() -> None:
            raise ClientGone

        stage.client.writable = gone  # type: ignore[method-assign]
        with pytest.raises(ClientGone):
            await stage.get(Span(0, IMAGE_BYTES))


async def test_a_lane_that_is_lost_ends_it() -> None:
    async with Stage(image_of([]), random.Random(11)) as stage:
        stage.worker.answer = lambda job: stage.ends.front.close("lost")  # type: ignore[method-assign]
        with pytest.raises(LaneLost, match="lost"):
            await stage.get(Span(0, IMAGE_BYTES))


async def test_a_cancelled_download_leaves_no_slot_behind() -> None:
    async with Stage(image_of([]), random.Random(13)) as stage:
        stage.worker.answer = lambda job: stage.worker._waiting.append(job)  # type: ignore[method-assign]
        running = asyncio.ensure_future(stage.get(Span(0, IMAGE_BYTES)))
        await until(lambda: stage.ends.front.in_flight)
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()
        del stage.worker.answer
