"""The worker's end of a lane: it maps what the front end offers, checks every job, and publishes completions."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

from workers.lane import memory
from workers.lane.channel import Channel, ChannelBroken
from workers.lane.protocol import (
    VERSION,
    Completion,
    ImageFacts,
    Job,
    Kind,
    LaneFailed,
    LaneOffer,
    LaneOpened,
)
from workers.lane.ring import WRITES, Consumer, Producer, RingBroken, Rings, rings_bytes

MOST_CELLS = 65536
# Of lanes, for the names of their jobs in the ledger (workers/image/schedule.py).
IDENTITIES = 2048
MOST_SLOTS = 1024
MOST_SLOT_BYTES = 4 * 1024 * 1024
# Room for packed extents, at least a page of them.
LEAST_SLOT_BYTES = 4096

NEEDS_SLOT = frozenset({Kind.READ, Kind.WRITE, Kind.EXTENTS, Kind.LOST, Kind.CHECKSUM, Kind.STORE})
FILLS_SLOT = frozenset({Kind.READ, Kind.WRITE})


class LaneBroken(Exception):
    """The front end published what cannot be: the lane is dropped."""


class WorkerLane:
    """One lane, from its introduction to the front end's leaving."""

    def __init__(self, number: int, generation: int, front_end: int, sock: socket.socket) -> None:
        self.number = number
        self.front_end = front_end
        self.channel: Channel[LaneOffer] = Channel(sock, LaneOffer)
        self.doorbell = -1
        self.slots = 0
        self.resumes = False
        self.closed = False
        # Of the front end's end, over all its attachments; 0 before the offer.
        self.identity = 0
        self._generation = generation
        self._busy: set[int] = set()
        self._to_front = -1
        self._slot_bytes = 0
        self._views: list[memoryview] = []
        self._rings: Rings | None = None
        self._jobs: Consumer
        self._completions: Producer

    @property
    def offered(self) -> bool:
        """The front end has made its offer."""
        return self._rings is not None

    @property
    def slots_used(self) -> int:
        """Slots that jobs in flight hold."""
        return len(self._busy)

    def accept(self, offer: LaneOffer, fds: list[int]) -> None:
        """Map the offered memory. Raises LaneBroken when it is not what a lane needs; closes what it does not keep."""
        kept: list[int] = []
        try:
            self._check(offer, fds)
            arena_fd, rings_fd, self.doorbell, self._to_front = fds
            kept = [self.doorbell, self._to_front]
            arena = memory.map_shared(arena_fd, offer.slots * offer.slot_bytes)
            self._rings = Rings(memory.map_shared(rings_fd, rings_bytes(offer.cells)), offer.cells)
        except memory.MemoryRefused as error:
            raise LaneBroken(str(error)) from error
        finally:
            for fd in set(fds) - set(kept):
                os.close(fd)
        self.slots, self._slot_bytes, self.resumes = offer.slots, offer.slot_bytes, offer.resumes
        self.identity = 1 + (self.front_end * IDENTITIES // 16 + offer.lane) % (IDENTITIES - 1)
        self._views = [arena[at : at + offer.slot_bytes] for at in range(0, len(arena), offer.slot_bytes)]
        self._jobs, self._completions = self._rings.worker()

    def _check(self, offer: LaneOffer, fds: list[int]) -> None:
        if offer.version != VERSION or offer.generation != self._generation:
            raise LaneBroken(f"version {offer.version} generation {offer.generation}, expected {self._generation}")
        if len(fds) != 4 or self.offered:
            raise LaneBroken(f"an offer with {len(fds)} descriptors")
        if not (0 < offer.slots <= MOST_SLOTS and LEAST_SLOT_BYTES <= offer.slot_bytes <= MOST_SLOT_BYTES):
            raise LaneBroken(f"{offer.slots} slots of {offer.slot_bytes} bytes")
        if not 0 < offer.cells <= MOST_CELLS:
            raise LaneBroken(f"rings of {offer.cells} cells")
        if not all(_is_doorbell(fd) for fd in fds[2:]):
            raise LaneBroken("a doorbell that is no eventfd")

    def open(self, image: ImageFacts) -> None:
        """Tell the front end that jobs are welcome."""
        self.channel.send(LaneOpened(VERSION, self._generation, image))

    def refuse(self, reason: str) -> None:
        """Tell the front end that there is no image to be had, and why."""
        self.channel.send(LaneFailed(reason))

    def jobs(self) -> Iterator[Job]:
        """Jobs published since the last call, if the doorbell has rung. Raises LaneBroken as `published` does."""
        try:
            os.eventfd_read(self.doorbell)
        except BlockingIOError:
            return iter(())
        return self.published()

    def published(self) -> Iterator[Job]:
        """Jobs published since the last call, rung for or not. Raises LaneBroken on the first one that cannot be."""
        try:
            for generation, kind, *fields in self._jobs.pop_all():
                flags, context, number, offset, length, slot, transfer = fields
                if generation != self._generation:
                    raise LaneBroken(f"a job of generation {generation}, not {self._generation}")
                job = Job(number, Kind(kind), offset, length, slot, transfer, flags, context)
                self._claim_slot(job)
                yield job
        except (RingBroken, ValueError) as error:
            raise LaneBroken(str(error)) from error

    def _claim_slot(self, job: Job) -> None:
        if (job.slot >= 0) is not (job.kind in NEEDS_SLOT):
            raise LaneBroken(f"a {job.kind.name} with slot {job.slot}")
        if job.slot < 0:
            return
        if job.slot >= self.slots or job.slot in self._busy:
            raise LaneBroken(f"slot {job.slot} is busy or beyond {self.slots}")
        if job.kind in FILLS_SLOT and job.length > self._slot_bytes:
            raise LaneBroken(f"{job.length} bytes for a slot of {self._slot_bytes}")
        self._busy.add(job.slot)

    def slot(self, job: Job) -> memoryview:
        """The bytes of the job's slot."""
        return self._views[job.slot]

    def note_writes(self, writes: int) -> None:
        """Tell the front end, before any completion that follows, how many writes the image has seen."""
        if self._rings is not None:
            self._rings.words[WRITES] = writes

    def publish(self, job: Job, completion: Completion) -> None:
        """Give the job's slot back and publish its completion.

        Raises ChannelBroken when the front end lets completions pile up, which its own bound on jobs forbids.
        """
        self._busy.discard(job.slot)
        if not self._completions.push(
            self._generation, completion.status, completion.number, completion.covered, completion.value
        ):
            raise ChannelBroken("the front end does not read completions")

    def ring(self) -> None:
        """Wake the front end."""
        try:
            os.eventfd_write(self._to_front, 1)
        except BlockingIOError:
            pass  # it has let 2^64 rings pile up: one more would tell it nothing

    def close(self) -> None:
        """Let go of socket and doorbells; the memory goes with the last command that uses it."""
        self.closed = True
        self.channel.close()
        for fd in (self.doorbell, self._to_front):
            if fd >= 0:
                os.close(fd)
        self.doorbell = self._to_front = -1


def _is_doorbell(fd: int) -> bool:
    """Whether it is an eventfd that will not block: anything else would end the worker, or have it wait for ever."""
    return os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[eventfd]" and not os.get_blocking(fd)
