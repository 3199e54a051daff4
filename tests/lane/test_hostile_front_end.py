"""A front end that offers or publishes what cannot be: the worker drops the lane, and keeps nothing of it."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator

import msgspec
import pytest

from tests.lane.ends import IMAGE, SLOT_BYTES
from workers.lane import memory
from workers.lane.channel import ChannelBroken, pair
from workers.lane.protocol import VERSION, Completion, Job, Kind, LaneFailed, LaneOffer, LaneOpened, Status
from workers.lane.ring import SUBMISSION_HEAD, Rings, rings_bytes
from workers.lane.worker_lane import MOST_CELLS, MOST_SLOT_BYTES, MOST_SLOTS, LaneBroken, WorkerLane

SLOTS, CELLS, GENERATION = 2, 4, 3
GOOD = LaneOffer(VERSION, GENERATION, SLOTS, SLOT_BYTES, CELLS, False)


class Hostile:
    """A front end's side by hand: its memory and doorbells, and whatever offer it likes."""

    def __init__(self) -> None:
        ours, theirs = pair()
        self.sock = ours
        self.worker = WorkerLane(1, GENERATION, 1, theirs)
        self.arena = memory.create("arena", SLOTS * SLOT_BYTES)
        self.rings_fd = memory.create("rings", rings_bytes(CELLS))
        self.rings = Rings(memory.map_shared(self.rings_fd, rings_bytes(CELLS)), CELLS)
        self.jobs, self.completions = self.rings.front_end()
        self.to_worker = os.eventfd(0, os.EFD_NONBLOCK)
        self.to_front = os.eventfd(0, os.EFD_NONBLOCK)

    @property
    def fds(self) -> list[int]:
        return [self.arena, self.rings_fd, self.to_worker, self.to_front]

    def offer(self, message: msgspec.Struct = GOOD, fds: list[int] | None = None) -> None:
        socket.send_fds(self.sock, [msgspec.msgpack.encode(message)], self.fds if fds is None else fds)
        received = self.worker.channel.receive()
        assert received is not None
        self.worker.accept(*received)

    def push(
        self,
        kind: int = Kind.FLUSH,
        *,
        generation: int = GENERATION,
        number: int = 1,
        offset: int = 0,
        length: int = 0,
        slot: int = -1,
    ) -> None:
        self.jobs.push(generation, kind, 0, 0, number, offset, length, slot, 0)
        os.eventfd_write(self.to_worker, 1)

    def close(self) -> None:
        if not self.worker.closed:
            self.worker.close()
        self.sock.close()
        for fd in self.fds:
            os.close(fd)
        del self.worker, self.rings, self.jobs, self.completions


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    made = Hostile()
    yield made
    made.close()


def changed(**fields: object) -> LaneOffer:
    return msgspec.structs.replace(GOOD, **fields)


@pytest.mark.parametrize(
    "offer",
    [
        changed(version=VERSION + 1),
        changed(generation=GENERATION - 1),
        changed(slots=0),
        changed(slots=-1),
        changed(slots=MOST_SLOTS + 1),
        changed(slots=SLOTS + 1),
        changed(slot_bytes=0),
        changed(slot_bytes=1),
        changed(slot_bytes=-SLOT_BYTES, slots=-SLOTS),
        changed(slot_bytes=MOST_SLOT_BYTES + 1),
        changed(slot_bytes=SLOT_BYTES * 2),
        changed(cells=0),
        changed(cells=-1),
        changed(cells=CELLS + 1),
        changed(cells=MOST_CELLS + 1),
    ],
    ids=repr,
)
def test_an_offer_that_cannot_be_is_refused(hostile: Hostile, offer: LaneOffer) -> None:
    with pytest.raises(LaneBroken):
        hostile.offer(offer)


@pytest.mark.parametrize("count", [0, 1, 3, 5, 8])
def test_an_offer_has_four_descriptors(hostile: Hostile, count: int) -> None:
    with pytest.raises(LaneBroken):
        hostile.offer(fds=[*hostile.fds, *hostile.fds][:count])


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("seals", [0, memory.SEALS & ~fcntl.F_SEAL_SHRINK, memory.SEALS | fcntl.F_SEAL_WRITE])
def test_memory_that_is_not_sealed_as_it_must_be_is_refused(hostile: Hostile, place: int, seals: int) -> None:
    fd = os.memfd_create("hostile", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, [SLOTS * SLOT_BYTES, rings_bytes(CELLS)][place])
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    fds = hostile.fds
    fds[place] = fd
    with pytest.raises(LaneBroken):
        hostile.offer(fds=fds)
    os.close(fd)


@pytest.mark.parametrize("place", [2, 3])
def test_a_doorbell_that_is_no_eventfd_or_would_block_is_refused(hostile: Hostile, place: int) -> None:
    blocking = os.eventfd(0)
    for fd in (hostile.arena, hostile.sock.fileno(), blocking):
        fds = hostile.fds
        fds[place] = fd
        with pytest.raises(LaneBroken):
            hostile.offer(fds=fds)
    os.close(blocking)


def test_a_second_offer_is_refused(hostile: Hostile) -> None:
    hostile.offer()
    with pytest.raises(LaneBroken):
        hostile.offer()


@pytest.mark.parametrize("message", [LaneFailed("you"), LaneOpened(VERSION, GENERATION, IMAGE)])
def test_what_only_a_worker_says_breaks_the_channel(hostile: Hostile, message: msgspec.Struct) -> None:
    with pytest.raises(ChannelBroken):
        hostile.offer(message)


@pytest.mark.parametrize(
    "job",
    [
        {"kind": 0},
        {"kind": 99},
        {"generation": GENERATION + 1},
        {"kind": Kind.READ, "slot": SLOTS, "length": 1},
        {"kind": Kind.READ, "slot": 2**31 - 1, "length": 1},
        {"kind": Kind.READ, "slot": -1, "length": 1},
        {"kind": Kind.READ, "slot": -2, "length": 1},
        {"kind": Kind.EXTENTS, "slot": -1, "length": 1},
        {"kind": Kind.FLUSH, "slot": 0},
        {"kind": Kind.ZERO, "slot": 1, "length": 1},
        {"kind": Kind.READ, "slot": 0, "length": SLOT_BYTES + 1},
        {"kind": Kind.WRITE, "slot": 0, "length": 2**64 - 1},
    ],
    ids=repr,
)
def test_a_job_that_cannot_be_is_refused_and_those_before_it_are_not(hostile: Hostile, job: dict[str, int]) -> None:
    hostile.offer()
    hostile.push(number=7)
    hostile.push(**job)
    found = hostile.worker.jobs()
    assert next(found).number == 7
    with pytest.raises(LaneBroken):
        next(found)


def test_a_slot_is_busy_until_its_completion_was_published(hostile: Hostile) -> None:
    hostile.offer()
    hostile.push(Kind.READ, slot=1, length=10)
    (job,) = hostile.worker.jobs()
    hostile.worker.publish(job, Completion(job.number, Status.OK, 10))
    hostile.push(Kind.READ, slot=1, length=10)
    assert len(list(hostile.worker.jobs())) == 1
    assert hostile.worker.slots_used == 1
    hostile.push(Kind.READ, slot=1, length=10)
    with pytest.raises(LaneBroken, match="busy"):
        list(hostile.worker.jobs())


@pytest.mark.parametrize("head", [1, CELLS + 1, 2**64 - 1])
def test_a_ring_that_is_broken_breaks_the_lane(hostile: Hostile, head: int) -> None:
    """A head of 1 without its cell: the cell's sequence number is checked from the second on, its generation always."""
    hostile.offer()
    hostile.rings.words[SUBMISSION_HEAD] = head
    os.eventfd_write(hostile.to_worker, 1)
    with pytest.raises(LaneBroken):
        list(hostile.worker.jobs())


def test_completions_that_are_not_read_break_the_lane_instead_of_being_lost(hostile: Hostile) -> None:
    hostile.offer()
    jobs: list[Job] = []
    for _ in range(2 * CELLS):
        hostile.push()
        jobs += hostile.worker.jobs()
    for job in jobs[:CELLS]:
        hostile.worker.publish(job, Completion(job.number, Status.OK))
    with pytest.raises(ChannelBroken):
        hostile.worker.publish(jobs[CELLS], Completion(jobs[CELLS].number, Status.OK))


def test_a_doorbell_that_is_full_does_not_stop_the_worker(hostile: Hostile) -> None:
    hostile.offer()
    os.eventfd_write(hostile.to_front, 2**64 - 2)
    hostile.worker.ring()


def test_a_ring_without_a_job_is_nothing(hostile: Hostile) -> None:
    hostile.offer()
    assert list(hostile.worker.jobs()) == []
    os.eventfd_write(hostile.to_worker, 5)
    assert list(hostile.worker.jobs()) == []


def test_a_closed_lane_can_be_told_of_a_job_that_goes_on(hostile: Hostile) -> None:
    """Its memory goes with the last command that uses it, not before."""
    hostile.offer()
    hostile.push(Kind.READ, slot=0, length=10)
    (job,) = hostile.worker.jobs()
    view = hostile.worker.slot(job)
    hostile.worker.close()
    view[:10] = b"0123456789"
    assert hostile.worker.closed
