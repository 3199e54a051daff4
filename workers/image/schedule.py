"""The worker's rules, without I/O: jobs in, commands out, completions out.

    submit(task) ──► locks ──► plan ──► `ready` commands ──► (NBD) ──► ended() ──► plan ... ──► `finished`

The shell (workers/image/worker.py) carries commands from `ready` to connections and completions from
`finished` to lanes, the latter first: a completion is published before any job that had to wait for it
starts. When a connection is lost its commands come back by `lost` and are sent again in their old order;
their bytes are still in the slots.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Generic, TypeVar

from workers.image import job_kinds, plan
from workers.image.extents import ExtentBuilder
from workers.image.job_kinds import CHANGING, LOCKING, WRITING
from workers.image.ledger import Ledger, LedgerFull
from workers.image.overlap import RangeLocks
from workers.image.plan import Command, CommandFailed, Limits, Operation, Plan
from workers.image.range_set import RangeSet
from workers.lane.extents_format import ExtentsBroken
from workers.lane.lost_format import most_ranges, pack
from workers.lane.protocol import Completion, Flag, Job, Kind, Status

LaneT = TypeVar("LaneT")

MAY_HOLE, AGAIN = Flag.MAY_HOLE.value, Flag.AGAIN.value

Doubt = tuple[int, int, int]
"""Offset and length of a range that a predecessor's command may still write, and the tag of its job, 0 if unknown."""

# Each has windows of memory, and the processors to itself: more of them at once would not end sooner.
CHECKSUMS_MOST = 2


class Task(Generic[LaneT]):
    """A job under way: whose it is, its slot's bytes, its plan, and the commands it waits for."""

    __slots__ = ("batch", "error", "job", "lane", "locked", "plan", "record", "slot", "tag", "waiting")

    def __init__(self, tag: int, lane: LaneT, job: Job, slot: memoryview | None) -> None:
        self.tag = tag
        self.lane = lane
        self.job = job
        self.slot = slot
        self.plan: Plan | None = None
        self.record: _Record | None = None
        self.locked = False
        self.batch: list[Command] = []
        self.waiting = 0
        self.error = 0


class _Record(plan.Record):
    """What one task tells the ledger; a plan has one range begun at a time."""

    def __init__(self, ledger: Ledger, tag: int, transfer: int) -> None:
        self._ledger, self._tag, self._transfer = ledger, tag, transfer
        self.begun = False

    def begin(self, offset: int, length: int) -> None:
        self._ledger.begin(self._tag, offset, length)
        self.begun = True

    def written(self, offset: int, length: int) -> None:
        self._ledger.written(self._tag, self._transfer, offset, length)
        self.begun = False

    def end(self, status: Status) -> None:
        """The task is over; what it had begun is refused by the server, or in doubt."""
        if self.begun and status is Status.GONE:
            self._ledger.abandoned(self._tag)
        elif self.begun:
            self._ledger.failed(self._tag)
        self.begun = False


class Schedule(Generic[LaneT]):
    """All jobs of one export, over all lanes."""

    def __init__(self, ledger: Ledger, is_zero: Callable[[memoryview], bool]) -> None:
        self.ledger = ledger
        self.ready: deque[Command] = deque()
        self.finished: deque[tuple[LaneT, Job, Completion]] = deque()
        self.writes = 0
        self.hash_threads = 1
        self._is_zero = is_zero
        self._limits: Limits | None = None
        self._locks: RangeLocks[int] = RangeLocks(1)
        # Known before the size of a block is, which only the first connection tells.
        self._doubts: list[Doubt] = []
        self._tasks: dict[int, Task[LaneT]] = {}
        self._unplanned: list[Task[LaneT]] = []
        self._flushes: list[Task[LaneT]] = []
        self._flushing: list[Task[LaneT]] = []
        self._checksums: dict[int, Task[LaneT]] = {}  # by tag; the first CHECKSUMS_MOST run, the others wait
        self._tags = count(1)
        self._numbers = count(1)

    @property
    def active(self) -> int:
        """Jobs that are not finished."""
        return len(self._tasks)

    def connected(self, limits: Limits) -> None:
        """The export answers; jobs that came before that can be planned."""
        if self._limits is None:
            self._locks = RangeLocks(limits.facts.block_bytes)
            for offset, length, owner in self._doubts:
                self._locks.doubt(offset, length, owner)
        self._limits = limits
        unplanned, self._unplanned = self._unplanned, []
        for task in unplanned:
            self._enter(task)

    def doubt(self, offset: int, length: int, owner: int = 0) -> None:
        """Writes over this range wait until `settled`: the predecessor's command may still land there.

        `owner` is the tag of its job; the same job, submitted again, does not wait.
        """
        self._doubts.append((offset, length, owner))
        self._locks.doubt(offset, length, owner)

    def settled(self) -> None:
        """The settling time is over."""
        self._doubts.clear()
        for tag in self._locks.clear_doubts():
            self._start(self._tasks[tag])

    # -- jobs in ---------------------------------------------------------------------------------------------

    def submit(self, lane: LaneT, job: Job, slot: memoryview | None, identity: int = 0) -> None:
        """A job arrived, in the order of its lane; `identity` (below 2048) is the lane's over all its attachments."""
        task = Task(self._tag(job, identity), lane, job, slot)
        self._tasks[task.tag] = task
        if self._limits is None:
            self._unplanned.append(task)
        else:
            self._enter(task)

    def _tag(self, job: Job, identity: int) -> int:
        """The job's name in the ledger: the same when it is submitted again, to a successor of this worker."""
        tag = identity << 20 | job.number & 0xFFFFF
        if not identity or tag in self._tasks:
            tag = 1 << 31 | next(self._tags)
        return tag

    def _enter(self, task: Task[LaneT]) -> None:
        job, limits = task.job, self._limits
        assert limits is not None
        refusal = job_kinds.refusal(job, limits)
        if refusal:
            self._finish(task, Status.REFUSED, value=refusal)
        elif job.kind is Kind.FLUSH:
            self._flushes.append(task)
            self._start_flush()
        elif job.kind is Kind.CHECKSUM:
            self._checksums[task.tag] = task
            self._start_checksums()
        elif job.kind in LOCKING and not limits.facts.whole_file:
            task.locked = True
            again = bool(job.flags & AGAIN)
            if self._locks.enter(task.tag, job.offset, job.length, job.kind in WRITING, again):
                self._start(task)
        else:
            self._start(task)

    def _start(self, task: Task[LaneT]) -> None:
        if task.job.kind is Kind.TOLD:
            if task.job.offset == self.ledger.losses:
                self.ledger.told(task.job.transfer)
            self._finish(task, Status.OK)
        elif task.job.kind is Kind.LOST:
            self._pack_lost(task)
        elif task.job.kind is Kind.CANCEL:
            self._cancel(task.lane, task.job.offset)
            self._finish(task, Status.OK)
        elif task.job.kind is Kind.GO_ON:
            self._go_on(task.lane, task.job.offset)
            self._finish(task, Status.OK)
        else:
            task.plan = self._plan(task)
            self._advance(task)

    def _pack_lost(self, task: Task[LaneT]) -> None:
        assert task.slot is not None
        lost = RangeSet(self.ledger.lost(task.job.transfer))
        lost.thin(most_ranges(task.slot))
        self._finish(task, Status.OK, value=pack(task.slot, self.ledger.losses, list(lost)))

    def _plan(self, task: Task[LaneT]) -> Plan:
        job, limits = task.job, self._limits
        assert limits is not None
        if limits.facts.whole_file:
            return job_kinds.in_session(task.lane, job, task.slot)
        may_hole = bool(job.flags & MAY_HOLE)
        record = task.record = _Record(self.ledger, task.tag, job.transfer)
        if job.kind is Kind.ZERO:
            return plan.zero(limits, record, job.offset, job.length, may_hole)
        assert task.slot is not None
        if job.kind is Kind.READ:
            return plan.read(limits, job.offset, task.slot[: job.length])
        if job.kind is Kind.WRITE:
            return plan.write(limits, record, job.offset, task.slot[: job.length], may_hole, self._is_zero)
        bitmap = limits.facts.bitmaps[job.context - 1] if job.context else None
        return plan.extents(limits, job.offset, job.length, bitmap, ExtentBuilder(task.slot))

    def drop_transfer(self, transfer: int) -> bool:
        """Nobody waits for the jobs of this transfer: none is begun any more. True when none is under way."""
        for task in list(self._tasks.values()):
            if task.job.transfer == transfer and task.job.kind in WRITING and task.plan is None:
                self._unplanned = [other for other in self._unplanned if other is not task]
                self._finish(task, Status.FAILED, value=errno.ECANCELED)
        return not any(task.job.transfer == transfer and task.job.kind in CHANGING for task in self._tasks.values())

    # -- commands out and back -------------------------------------------------------------------------------

    def next_ready(self) -> Command | None:
        """The next command to send; None while a completion waits to be published.

        A job that begins before the one it had waited for is published could be undone: if the worker dies then,
        the earlier job is submitted again, and lands on the later one.
        """
        return self.ready.popleft() if self.ready and not self.finished else None

    def _advance(self, task: Task[LaneT]) -> None:
        assert task.plan is not None
        try:
            if task.error:
                commands = task.plan.throw(CommandFailed(task.error))
            else:
                commands = next(task.plan)
        except StopIteration as done:
            ended: plan.Done = done.value
            self._finish(task, Status.OK, ended.covered, ended.filled)
        except CommandFailed as failed:
            self._finish(task, Status.FAILED, value=failed.errno)
        except ExtentsBroken:
            self._finish(task, Status.FAILED, value=errno.EPROTO)
        except LedgerFull:
            self._finish(task, Status.FAILED, value=errno.ENOBUFS)
        else:
            task.waiting += len(commands)
            task.batch = commands
            self._send(task, commands)

    def _send(self, task: Task[LaneT] | None, commands: list[Command]) -> None:
        for command in commands:
            command.task = task
            command.answered = False
            command.number = next(self._numbers)
            self.ready.append(command)

    def ended(self, command: Command, error: int) -> None:
        """The server answered `command`, with an errno or 0."""
        if command.operation is Operation.FLUSH:
            self._flush_ended(error)
            return
        task = command.task
        if not isinstance(task, Task) or not self._is_wanted(command):
            return
        command.answered = True
        task.error = task.error or error
        task.waiting -= 1
        if task.waiting == 0 or task.job.kind is Kind.CHECKSUM:
            self._advance(task)

    def _is_wanted(self, command: Command) -> bool:
        """Whether somebody still waits for it: its job may have failed while the command was held back."""
        if command.operation is Operation.FLUSH:
            return bool(self._flushing)
        return isinstance(command.task, Task) and command.task.tag in self._tasks

    def lost(self, commands: list[Command]) -> None:
        """These commands were in flight on a connection that is gone, and fenced: send them again.

        So are their confirmed companions of a write that is not confirmed as a whole: the server may be another
        one, and what it never saw must not be recorded as written to it.
        """
        again = [*filter(self._is_wanted, commands), *self.ready]
        for task in self._tasks.values():
            if task.record is not None and task.record.begun:
                companions = [command for command in task.batch if command.answered]
                for command in companions:
                    command.answered = False
                task.waiting += len(companions)
                again += companions
        self.ready = deque(sorted(again, key=lambda command: command.number))

    def gone(self, why: int = errno.ENOTCONN) -> None:
        """The image did not come back in time, or is another one: every job fails, with this errno."""
        if self._flushing:
            self.ledger.flush_failed()
        self._flushes.clear()
        self._flushing.clear()
        self._unplanned.clear()
        for task in list(self._tasks.values()):
            self._finish(task, Status.GONE, value=why)
        self.ready.clear()  # what the end of one job let another begin

    def _finish(self, task: Task[LaneT], status: Status, covered: int = 0, value: int = 0) -> None:
        job = task.job
        if self._tasks.pop(task.tag, None) is None:
            return
        if job.kind in WRITING:
            self.writes += 1
        if task.record is not None:
            task.record.end(status)
        # Commands know their task, and plan and batch know the commands: a circle that would keep the lane's memory.
        task.plan, task.batch = None, []
        self.ledger.count_completed()
        self.finished.append((task.lane, job, Completion(job.number, status, covered, value)))
        if self._checksums.pop(task.tag, None) is not None:
            self._start_checksums()
        if task.locked:
            for tag in self._locks.leave(task.tag):
                waiting = self._tasks.get(tag)
                if waiting is not None:
                    self._start(waiting)

    # -- checksums, and what is cancelled --------------------------------------------------------------------

    def _start_checksums(self) -> None:
        for task in list(self._checksums.values())[:CHECKSUMS_MOST]:
            if task.plan is None and task.tag in self._checksums:
                self._start_checksum(task)

    def _start_checksum(self, task: Task[LaneT]) -> None:
        # hashlib costs a worker 4 ms of its start.
        from workers.image.checksum import checksum
        from workers.lane.checksum_format import ChecksumRefused, asked_in

        assert task.slot is not None
        assert self._limits is not None
        try:
            asked = asked_in(task.slot)
        except ChecksumRefused:
            self._finish(task, Status.REFUSED, value=errno.EINVAL)
        else:
            task.plan = checksum(self._limits, asked, self.hash_threads, task.slot)
            self._advance(task)

    def _go_on(self, lane: LaneT, number: int) -> None:
        """Have a CHECKSUM of `lane` look at what it may read."""
        for task in list(self._checksums.values()):
            if task.lane is lane and task.job.number == number and task.plan is not None:
                self._advance(task)

    def _cancel(self, lane: LaneT, number: int) -> None:
        """End a ZERO or CHECKSUM of `lane` as soon as nothing of it is on the way any more."""
        for task in self._tasks.values():
            if task.lane is lane and task.job.number == number:
                if task.job.kind is Kind.CHECKSUM or (task.job.kind is Kind.ZERO and task.plan is None):
                    self._stop(task)
                elif task.job.kind is Kind.ZERO:
                    task.error = errno.ECANCELED  # thrown into its plan when its step has ended
                return

    def _stop(self, task: Task[LaneT]) -> None:
        """What is on the way reads into buffers that nobody else has."""
        self._finish(task, Status.FAILED, value=errno.ECANCELED)
        self.ready = deque(command for command in self.ready if command.task is not task)

    def left_by(self, lane: LaneT) -> None:
        """The lane is closed: nobody would hear of its checksums."""
        for task in list(self._checksums.values()):
            if task.lane is lane:
                self._stop(task)

    # -- flush: one at a time, for all who wait --------------------------------------------------------------

    def _start_flush(self) -> None:
        if self._flushing or not self._flushes:
            return
        self._flushing, self._flushes = self._flushes, []
        self.ledger.flush_started()
        self._send(None, [Command(Operation.FLUSH)])

    def _flush_ended(self, error: int) -> None:
        flushed, self._flushing = self._flushing, []
        if error:
            self.ledger.flush_failed()
        else:
            self.ledger.flush_done()
        for task in flushed:
            if error:
                self._finish(task, Status.FAILED, value=error)
            else:
                lost = self.ledger.lost(task.job.transfer)
                self._finish(task, Status.LOST if lost else Status.OK)
        self._start_flush()
