"""All jobs against all orders: answers in any, connections lost at any moment, and the bytes of doing one by one."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.image.device import Device, limits_of, new_schedule
from workers.image.job_kinds import WRITING
from workers.image.plan import Command
from workers.image.schedule import Task
from workers.lane.protocol import Job, Kind, Status

SIZE = 64
BLOCK = 4


class World:
    """A schedule, a server that executes in any order, and what the bytes must be if jobs had come one by one."""

    def __init__(self, chance: random.Random, can_zero: bool) -> None:
        limits = limits_of(SIZE, BLOCK, 8, can_zero=can_zero)
        self.chance = chance
        self.schedule = new_schedule()
        self.schedule.connected(limits)
        self.device = Device(limits, bytes(SIZE))
        self.model = bytearray(SIZE)
        self.in_flight: list[Command] = []
        self.expected: dict[int, tuple[Job, memoryview, bytes]] = {}
        self.confirmed: set[int] = set()

    def submit(self, kind: Kind, offset: int, length: int) -> None:
        number = len(self.expected) + 1
        job = Job(number, kind, offset, length, transfer=1)
        slot = memoryview(bytearray([number if kind is Kind.WRITE else 0] * SIZE))
        if kind is Kind.WRITE:
            self.model[offset : offset + length] = slot[:length]
        elif kind is Kind.ZERO:
            self.model[offset : offset + length] = bytes(length)
        self.expected[number] = job, slot, bytes(self.model[offset : offset + length])
        self.schedule.submit("lane", job, slot)

    def send(self) -> None:
        command = self.schedule.next_ready()
        if command is not None:
            for other in self.in_flight:
                assert not self.conflict(command, other)
            self.in_flight.append(command)

    def conflict(self, one: Command, other: Command) -> bool:
        assert isinstance(one.task, Task)
        assert isinstance(other.task, Task)
        jobs = [one.task.job, other.task.job]
        if jobs[0] is jobs[1] or not {job.kind for job in jobs} & WRITING:
            return False
        spans = [self.device.limits.round_out(job.offset, job.length) for job in jobs]
        return spans[0][0] < spans[1][1] and spans[1][0] < spans[0][1]

    def answer(self) -> None:
        if self.in_flight:
            command = self.in_flight.pop(self.chance.randrange(len(self.in_flight)))
            self.device.execute(command)
            self.schedule.ended(command, 0)

    def lose(self) -> None:
        """The connection ends: the server has carried out whatever it liked, and told nothing of it."""
        for command in self.chance.sample(self.in_flight, self.chance.randint(0, len(self.in_flight))):
            self.device.execute(command)
        lost, self.in_flight = self.in_flight, []
        self.schedule.lost(self.chance.sample(lost, len(lost)))

    def publish(self) -> None:
        while self.schedule.finished:
            _, job, completion = self.schedule.finished.popleft()
            assert completion.status is Status.OK
            assert completion.covered == job.length
            assert job.number not in self.confirmed
            self.confirmed.add(job.number)
            _, slot, bytes_then = self.expected[job.number]
            if job.kind is Kind.READ:
                assert slot[: job.length] == bytes_then

    def end(self) -> None:
        while len(self.confirmed) < len(self.expected):
            self.publish()
            self.send()
            self.answer()
        assert self.device.data == self.model
        assert self.schedule.active == 0
        assert self.schedule.ledger.doubts() == []
        assert not self.schedule.ready


SPANS = st.tuples(st.integers(0, SIZE - 16), st.integers(1, 16))
STEPS = st.one_of(
    st.tuples(st.sampled_from([Kind.READ, Kind.WRITE, Kind.ZERO]), SPANS),
    st.sampled_from(["send", "send", "answer", "answer", "publish", "lose"]),
)


@settings(max_examples=200)
@given(steps=st.lists(STEPS, max_size=60), chance=st.randoms(use_true_random=False), can_zero=st.booleans())
def test_whatever_the_order_of_answers_and_losses_the_bytes_are_as_if_jobs_had_come_one_by_one(
    steps: list[tuple[Kind, tuple[int, int]] | str], chance: random.Random, can_zero: bool
) -> None:
    world = World(chance, can_zero)
    for step in steps:
        if isinstance(step, str):
            getattr(world, step)()
        else:
            world.submit(step[0], *step[1])
    world.end()
