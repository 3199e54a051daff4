"""One worker's time with a lane, seen from the front end: a socket, rings made for it, doorbells.

What a worker says is checked here; one that breaks the rules has its lane closed.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Protocol

from workers.lane import memory
from workers.lane.books import NeverAsked
from workers.lane.channel import Channel, ChannelBroken, ChannelClosed
from workers.lane.lane_states import LaneState
from workers.lane.protocol import (
    VERSION,
    Completion,
    ImageFacts,
    Job,
    LaneFailed,
    LaneOffer,
    LaneOpened,
    Status,
)
from workers.lane.ring import WRITES, Consumer, Producer, RingBroken, Rings, rings_bytes
from workers.lane.slots import Slots

CELLS = 256


class Attached(Protocol):
    """The lane, as its attachment needs it."""

    number: int
    slots: Slots
    slot_bytes: int
    state: LaneState

    def on_opened(self, image: ImageFacts) -> None:
        """The worker has accepted the offer."""

    def on_completions(self, completions: list[Completion]) -> None:
        """The worker has published these."""

    def on_worker_gone(self) -> None:
        """It has closed its end."""

    def close(self, reason: str) -> None:
        """It cannot go on with this worker, nor with another."""


class Attachment:
    """One worker's time with the lane: its socket, its rings, its doorbells."""

    def __init__(self, lane: Attached, sock: socket.socket, generation: int, arena_fd: int) -> None:
        self._lane = lane
        self._closed = False
        self._rings = False  # whether a ring is due already
        self._generation = generation
        self._loop = asyncio.get_running_loop()
        self._channel: Channel[LaneOpened | LaneFailed] = Channel(sock, LaneOpened | LaneFailed)
        rings_fd = memory.create(f"mover-rings-{lane.number}", rings_bytes(CELLS))
        self.rings = Rings(memory.map_shared(rings_fd, rings_bytes(CELLS)), CELLS)
        self._submissions: Producer
        self._completions: Consumer
        self._submissions, self._completions = self.rings.front_end()
        self._to_worker = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._to_front = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        resumes = lane.state is LaneState.DETACHED
        offer = LaneOffer(VERSION, generation, len(lane.slots), lane.slot_bytes, CELLS, resumes, lane.number)
        try:
            self._channel.send(offer, [arena_fd, rings_fd, self._to_worker, self._to_front])
        except ChannelClosed:
            pass  # the worker is dead already: its end of the socket is readable and says so
        finally:
            os.close(rings_fd)
        self._loop.add_reader(self._channel.fileno(), self._on_message)
        self._loop.add_reader(self._to_front, self._on_doorbell)

    @property
    def writes_seen(self) -> int:
        """The worker's count of writes, told apart from every other worker's."""
        return self._generation << 64 | self.rings.words[WRITES]

    def push(self, job: Job) -> bool:
        """Publish a job, to be rung for soon; False when the ring is full."""
        pushed = self._submissions.push(
            self._generation,
            job.kind,
            job.flags,
            job.context,
            job.number,
            job.offset,
            job.length,
            job.slot,
            job.transfer,
        )
        if pushed and not self._rings:
            self._rings = True
            self._loop.call_soon(self._ring)
        return pushed

    def _ring(self) -> None:
        """One ring for all that this turn of the loop has published: it costs more than a job does."""
        self._rings = False
        if not self._closed:
            os.eventfd_write(self._to_worker, 1)

    def _on_message(self) -> None:
        try:
            while (received := self._channel.receive()) is not None:
                message, fds = received
                for fd in fds:  # none belongs here
                    os.close(fd)
                self._handle(message)
        except (ChannelClosed, ChannelBroken):
            if not self._closed:
                self._lane.on_worker_gone()

    def _handle(self, message: LaneOpened | LaneFailed) -> None:
        if isinstance(message, LaneFailed):
            self._lane.close(message.reason)
        elif message.version != VERSION or message.generation != self._generation:
            self._lane.close(f"the worker speaks version {message.version}, not {VERSION}")
        elif self._lane.state is LaneState.OPEN:
            self._lane.close("the image's worker opened the lane twice")
        else:
            self._lane.on_opened(message.image)

    def _on_doorbell(self) -> None:
        try:
            os.eventfd_read(self._to_front)
        except BlockingIOError:
            return
        self._drain()

    def _drain(self) -> None:
        try:
            self._lane.on_completions(
                [self._completion(*fields) for fields in self._completions.pop_all()],
            )
        except (RingBroken, ChannelBroken, NeverAsked, ValueError) as error:
            self._lane.close(f"the image's worker broke the lane: {error}")

    def _completion(self, generation: int, status: int, number: int, covered: int, value: int) -> Completion:
        if generation != self._generation:
            raise ChannelBroken(f"completion of generation {generation}, not {self._generation}")
        return Completion(number, Status(status), covered, value)

    def close(self) -> None:
        """Read what was published to the end, then let go of everything."""
        self._closed = True
        self._loop.remove_reader(self._to_front)
        self._loop.remove_reader(self._channel.fileno())
        if self._lane.state is not LaneState.CLOSED:
            self._drain()
        self._channel.close()
        os.close(self._to_worker)
        os.close(self._to_front)
