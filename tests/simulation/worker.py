"""A simulated worker: the real ledger, schedule, plans and succession; only descriptors and time are missing."""

from __future__ import annotations

from collections.abc import Callable

from tests.simulation.front import FrontEnd, Rung
from tests.simulation.server import Link
from tests.simulation.truth import Violation, Write
from workers.image.job_kinds import WRITING
from workers.image.ledger import Ledger
from workers.image.plan import WRITING as CHANGES
from workers.image.plan import Command, Limits
from workers.image.schedule import Schedule, Task
from workers.image.succession import Succession
from workers.lane.protocol import Completion, Job, Kind, Status


class Lane:
    """The worker's end of a lane."""

    def __init__(self, front: FrontEnd, rings: Rung) -> None:
        self.front = front
        self.rings = rings
        self.opened = False
        self.jobs, self.completions = rings.worker()

    def open(self) -> None:
        self.opened = True


class Late:
    """Writes of a connection that could not be fenced, waiting for it to settle."""

    def __init__(self, link: Link, commands: list[Command], until: int) -> None:
        self.link = link
        self.commands = commands
        self.until = until


class Worker:
    """One life of the worker. `point` is called before each store into the ledger."""

    def __init__(self, memory: bytearray, local: bool, limits: Limits, point: Callable[[], None]) -> None:
        self.limits = limits
        self.ledger = Ledger(memoryview(memory), point)
        self.schedule: Schedule[Lane] = Schedule(self.ledger, lambda view: not any(view))
        self.succession = Succession(self.schedule, local)
        self.lanes: dict[FrontEnd, Lane] = {}
        self.links: list[Link] = []
        self.late: list[Late] = []
        self.doubtful_until: int | None = None
        # Jobs from their first command until their completion is published.
        self._under_way: dict[tuple[FrontEnd, int], Job] = {}

    # -- lanes -----------------------------------------------------------------------------------------------

    def rung(self) -> list[Lane]:
        """Lanes whose doorbells were rung, in that order, as epoll reports them."""
        return sorted((lane for lane in self.lanes.values() if lane.front.rung), key=lambda lane: lane.front.rung or 0)

    def read_jobs(self) -> None:
        """Read all jobs that were published, before anything is sent."""
        for lane in self.rung():
            lane.front.rung = None
            self._read_jobs(lane)

    def _read_jobs(self, lane: Lane) -> None:
        for _, kind, flags, context, number, offset, length, slot, transfer in lane.jobs.pop_all():
            job = Job(number, Kind(kind), offset, length, slot, transfer, flags, context)
            self.schedule.submit(lane, job, lane.front.views[slot] if slot >= 0 else None, lane.front.number + 1)

    def publish(self, now: int) -> None:
        """Publish one completion, or drop it if its front end is dead."""
        lane, job, completion = self.schedule.finished.popleft()
        self._under_way.pop((lane.front, job.number), None)
        if not lane.front.alive:
            return
        fields = (completion.status, completion.number, completion.covered, completion.value)
        if not lane.completions.push(lane.rings.generation, *fields):
            self.schedule.finished.appendleft((lane, job, completion))
            raise Violation("the ring of completions is full")
        self._note_published(lane, completion, now)

    def _note_published(self, lane: Lane, completion: Completion, now: int) -> None:
        lane.front.published[completion.number] = now
        write = lane.front.writes.get(completion.number)
        if write is not None and completion.status is Status.OK:
            write.published = now

    # -- commands --------------------------------------------------------------------------------------------

    @property
    def can_send(self) -> bool:
        return bool(self.schedule.ready) and bool(self._ready_links())

    def _ready_links(self) -> list[Link]:
        return [link for link in self.links if link.deadline is None]

    def send(self) -> None:
        """Send one command on the connection that has the fewest."""
        command = self.schedule.next_ready()
        if command is None:
            return
        link = min(self._ready_links(), key=lambda one: len(one.in_flight))
        task = command.task
        write = None
        if isinstance(task, Task):
            self._forbid_overlap(task)
            write = task.lane.front.writes.get(task.job.number)
        _forbid_over_doubt(link, command, write)
        link.send(command, write)

    def _forbid_overlap(self, task: Task[Lane]) -> None:
        key = (task.lane.front, task.job.number)
        for other, job in self._under_way.items():
            if other != key and (job.kind in WRITING or task.job.kind in WRITING) and self._touch(job, task.job):
                raise Violation(f"jobs {job} and {task.job} are under way together")
        if task.job.length:
            self._under_way[key] = task.job

    def _touch(self, one: Job, other: Job) -> bool:
        (low, high), (start, end) = (self.limits.round_out(job.offset, job.length) for job in (one, other))
        return low < end and start < high

    def take_answer(self, link: Link, index: int) -> None:
        command = link.answers.pop(index)
        link.in_flight.remove(command)
        self.schedule.ended(command, 0)

    # -- connections -----------------------------------------------------------------------------------------

    def connected(self, link: Link) -> None:
        """A connection is READY, as Worker.connected has it."""
        self.links.append(link)
        if len(self.links) == 1:
            self.succession.connected(link.server.identity, self.limits)

    def disconnected(self, link: Link, fenced: bool, until: int) -> bool:
        """A connection has ended; whether the supervisor may drop its duplicate now."""
        self.links.remove(link)
        late = self.succession.disconnected(link.server.identity, True, link.in_flight, fenced)
        if late:
            self.late.append(Late(link, late, until))
        return not late

    def settle(self, now: int) -> list[Link]:
        """What the passing of time lets happen; connections that the supervisor may let go."""
        if self.doubtful_until is not None and now >= self.doubtful_until:
            self.doubtful_until = None
            self.succession.settled()
        due = [late for late in self.late if now >= late.until]
        for late in due:
            self.late.remove(late)
            self.schedule.lost(late.commands)
        return [late.link for late in due]


def _forbid_over_doubt(link: Link, command: Command, write: Write | None) -> None:
    """Nothing is written where an old command of another write may still land: who landed last would be chance."""
    if command.operation not in CHANGES:
        return
    for old in link.server.links:
        for other in (sent.command for sent in old.unapplied if old.cut and (write is None or sent.write is not write)):
            overlaps = command.offset < other.offset + other.length and other.offset < command.offset + command.length
            if overlaps and other.operation in CHANGES:
                raise Violation(f"a write is sent over {other.offset}+{other.length} on {old.number}, still in doubt")
