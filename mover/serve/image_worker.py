"""The worker of one export through its lives: started on demand, fenced when dead, restarted, given up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from config.log import facts
from config.url_rules import rules_of
from mover.serve.connections import Connections
from mover.serve.doubts import Doubts
from mover.serve.errors import Misbehaved
from mover.serve.fence import Fenced
from mover.serve.introduce import introduce
from mover.serve.lanes import Lane
from mover.serve.ledgers import KeptLedger, LedgerBroken, LedgerHeld
from mover.serve.messages import LaneRefused
from mover.serve.processes import Child
from mover.serve.restarts import Deaths
from mover.serve.states import WORKER_STATES, WorkerEvent, WorkerState
from mover.serve.tallies import KeptTally
from mover.serve.workers_house import House
from workers.image import counts
from workers.messages import (
    VERSION,
    AskStatistics,
    Connected,
    Disconnected,
    Forget,
    Forgotten,
    FromWorker,
    Leave,
    Retune,
    Serve,
    Statistics,
    WorkerHello,
)

log = logging.getLogger(__name__)

HELLO_S = 10.0
# The question whose answer nobody waits for.
SIGN_OF_LIFE = 0
# How often a worker that must wait for one of an earlier service looks again.
HELD_S = 0.1


class ImageWorker:
    """The worker of the export `key`, from the export's first lane; `at_rest(self)` says that nobody wants one now."""

    def __init__(self, key: str, house: House, at_rest: Callable[[ImageWorker], None]) -> None:
        self.key = key
        self.state = WorkerState.ABSENT
        self.restarts = 0
        self.given_up = 0
        self.ended = asyncio.Event()  # set whenever no process of this export runs
        self.ended.set()
        self._house = house
        self._loop = asyncio.get_running_loop()
        self._child: Child[FromWorker] | None = None
        self._connections = Connections()
        self._at_rest = at_rest
        self._ledger: KeptLedger | None = None
        self.tally = KeptTally(counts.LAYOUT)
        self._deaths = Deaths(house.settings.supervisor.deaths, house.settings.supervisor.backoff_s)
        self._doubts = Doubts()
        self._server_lost = False
        self._not_before_s = 0.0
        self._fault: str | None = None
        self._hello: asyncio.TimerHandle | None = None
        self._start_timer: asyncio.TimerHandle | None = None
        self._after_death: asyncio.Task[None] | None = None
        self._closing = False
        self._lane_numbers = count(1)
        self._questions = count(1)
        self._answers: dict[int, asyncio.Future[Statistics | None]] = {}
        self._forgetting: dict[int, asyncio.Future[None]] = {}  # by transfer

    # -- what the house asks of it ---------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """The running worker's process id."""
        return self._child.pid if self._child is not None else None

    @property
    def has_ledger(self) -> bool:
        """Whether the export's ledger is here."""
        return self._ledger is not None

    @property
    def settled_s(self) -> float:
        """When nothing of its past counts any more, if it rests until then; the loop's clock."""
        return max(self._not_before_s, self._doubts.until_s)

    @property
    def is_idle(self) -> bool:
        """Nobody wants anything of it, and its deaths, if it had any, are not to be counted on."""
        wanted = self.lanes or self._forgetting or self._deaths.in_a_row
        return self.state is WorkerState.ABSENT and not wanted

    @property
    def lanes(self) -> list[Lane]:
        """The lanes that front ends hold open to this export."""
        return self._house.lanes.of_export(self.key)

    def want(self, lane: Lane) -> None:
        """A lane of the book is new: attach it, now or when the worker is there; or refuse it for some seconds."""
        pause_s = self._not_before_s - self._loop.time()
        if self.state is WorkerState.RUNNING:
            self._introduce(lane)
        elif self.state is WorkerState.ABSENT and pause_s > 0:
            self._refuse(lane, "the image's worker was given up a moment ago", pause_s)
        elif self.state is WorkerState.ABSENT:
            self._start(lane)

    def retune(self) -> None:
        """The house has other settings."""
        if self._child is not None:
            self._child.send(Retune(self._house.settings.worker, self._house.settings.log))

    async def statistics(self) -> Statistics | None:
        """What the worker says of itself; None if there is none, or it ends before it answers."""
        if self._child is None:
            return None
        question = next(self._questions)
        answer: asyncio.Future[Statistics | None] = self._loop.create_future()
        self._answers[question] = answer
        self._child.send(AskStatistics(question))
        try:
            return await answer
        finally:
            self._answers.pop(question, None)

    async def forget(self, transfer: int) -> None:
        """Wait until no write of this transfer is under way, and have the ledger forget it. It must be here."""
        if transfer not in self._forgetting:
            self._forgetting[transfer] = self._loop.create_future()
            if self._child is not None:
                self._child.send(Forget(transfer))
            elif self.state is WorkerState.ABSENT:
                self._forget_at_rest()
        waiting = self._forgetting.get(transfer)
        if waiting is not None:
            await asyncio.shield(waiting)  # others may wait for the same

    def _forget_at_rest(self) -> None:
        """There is no worker, so nothing is under way, and the ledger is ours."""
        assert self._ledger is not None
        for transfer in list(self._forgetting):
            with self._mended() as ledger:
                ledger.forget(transfer)
            self._forgotten(transfer)

    @contextmanager
    def _mended(self) -> Iterator[KeptLedger]:
        """The ledger; begun anew if it proves to be broken, and then the lanes are told why they end."""
        assert self._ledger is not None
        try:
            yield self._ledger
        except LedgerBroken as error:
            log.error("replaced a broken ledger", extra=facts(export=self.key, why=error))
            self._house.ledgers.reset(self._ledger)
            self._fault = f"the image's worker left a broken ledger: {error}"

    def _forgotten(self, transfer: int) -> None:
        waiting = self._forgetting.pop(transfer, None)
        if waiting is not None:
            waiting.set_result(None)

    def let_go(self) -> None:
        """It is no more; its ledger stays on disk if there is something in it."""
        self.tally.close()
        if self._ledger is not None:
            if self._server_lost:
                with self._mended() as ledger:
                    ledger.server_lost()
            self._ledger.close()
            self._ledger = None

    def leave(self) -> None:
        """Ask the worker to finish and exit; there will be no successor."""
        self._close()
        if self._child is not None:
            self._child.send(Leave())

    def kill(self) -> None:
        """End the worker at once; there will be no successor."""
        self._close()
        if self._child is not None:
            self._child.kill()

    # -- its lives -------------------------------------------------------------------------------------------

    def _start(self, first: Lane) -> None:
        if not self._open_ledger(first):
            self._move(WorkerEvent.HOLD)
            self._start_timer = self._loop.call_later(HELD_S, self._start_if_wanted)
            return
        assert self._ledger is not None
        if self.state is WorkerState.PAUSED:
            self.restarts += 1
        self._move(WorkerEvent.START)
        self.ended.clear()
        try:
            self._child = self._house.spare.take(self._on_message, self._on_end)
        except OSError as error:
            log.error("cannot start a worker", extra=facts(export=self.key, why=error))
            self._loop.call_soon(self._on_end, None)
            return
        self._hello = self._child.within(HELLO_S, f"no hello within {HELLO_S:g} s")
        self._child.send(self._serve(first), [self._ledger.fd, self.tally.fd])
        for transfer in self._forgetting:
            self._child.send(Forget(transfer))
        log.info("worker started", extra=facts(export=self.key, pid=self._child.pid))
        for lane in self.lanes:
            self._introduce(lane)

    def _open_ledger(self, first: Lane) -> bool:
        """Take the export's ledger over; False while a worker of an earlier service has it."""
        if self._ledger is not None:
            return True
        try:
            self._ledger = self._house.ledgers.open(self.key, first.export.transport == "tcp")
        except LedgerHeld:
            if self.state is not WorkerState.HELD:
                log.warning("a worker of an earlier service has not left yet", extra=facts(export=self.key))
            return False
        doubts = [(offset, length, 0) for offset, length in self._ledger.doubts]
        settle_s = self._house.settings.worker.settle_s
        self._doubts = Doubts().after_death(not doubts, doubts, self._loop.time(), settle_s)
        return True

    def _serve(self, first: Lane) -> Serve:
        return Serve(
            VERSION,
            next(self._house.generations),
            first.export,
            self._house.settings.worker,
            list(self._doubts.ranges),
            self._doubts.until_s,
            self._server_lost,
            self._house.settings.log,
            self._house.roots_for(first.export),
            self._house.store_of(first.export),
            rules_of(self._house.settings.library),
            self._house.neighbours_of(first.export),
        )

    def _introduce(self, lane: Lane) -> None:
        assert self._child is not None
        introduce(lane, self._child, next(self._lane_numbers), next(self._house.generations))

    def _on_message(self, message: FromWorker, fds: list[int]) -> None:
        if isinstance(message, WorkerHello):
            self._on_hello(message)
        elif self._hello is not None:
            raise Misbehaved("it spoke before it said hello")
        elif isinstance(message, Connected):
            self._connections.keep(message.connection, fds)
            self._server_lost = False  # a worker connects only after it has brought its ledger up to date
        elif isinstance(message, Disconnected):
            self._connections.let_go(message.connection)
        elif isinstance(message, Forgotten):
            self._forgotten(message.transfer)
        else:
            self._answer(message.question, message)

    def _answer(self, question: int, statistics: Statistics | None) -> None:
        answer = self._answers.pop(question, None)
        if answer is not None and not answer.done():
            answer.set_result(statistics)

    def _on_hello(self, message: WorkerHello) -> None:
        if self._hello is None:
            raise Misbehaved("it said hello twice")
        if message.version != VERSION:
            self._fault = (
                f"the image's worker speaks version {message.version}, Mover version {VERSION}: "
                "restart Mover after an upgrade"
            )
            raise Misbehaved(self._fault)
        self._hello.cancel()
        self._hello = None
        assert self._child is not None
        self._child.keep_asking(AskStatistics(SIGN_OF_LIFE), self._house.settings.supervisor.silence_s)

    def _on_end(self, status: int | None) -> None:
        """The process is gone; `status` is None if it could not be started."""
        self._child = None
        self._hello = None
        self.ended.set()
        self._move(WorkerEvent.DIE)
        for question in list(self._answers):
            self._answer(question, None)
        level = logging.INFO if status == 0 and not self.lanes else logging.WARNING
        log.log(level, "worker ended", extra=facts(export=self.key, status=status, lanes=len(self.lanes)))
        if self._closing:
            self._connections.close()
            self._move(WorkerEvent.REST)
        else:
            self._after_death = self._loop.create_task(self._fence_and_decide(status))

    async def _fence_and_decide(self, status: int | None) -> None:
        fences = await self._connections.fence(self._house.settings.worker.fence_s)
        with self._mended() as ledger:
            self._judge(fences, ledger)
        if status == 0 and not self.lanes:
            self._move(WorkerEvent.REST)
        else:
            self._decide()

    def _judge(self, fences: list[Fenced], ledger: KeptLedger) -> None:
        if any(one.server_lost for one in fences):
            self._server_lost = True
            log.warning("a worker's server was lost too", extra=facts(export=self.key))
        worker = self._house.settings.worker
        gone = all(one.gone for one in fences)
        begun = ledger.begun()
        self._doubts = self._doubts.after_death(gone, begun, self._loop.time(), worker.settle_s)
        if not all(one.ended for one in fences):
            log.warning("a fence failed", extra=facts(export=self.key, in_doubt=len(self._doubts.ranges)))

    def _decide(self) -> None:
        assert self._ledger is not None
        pause_s = self._deaths.died(self._ledger.completed())
        if self._fault is not None:
            reason, self._fault = self._fault, None
            self._give_up(reason)
        elif pause_s is None:
            deaths = self._house.settings.supervisor.deaths
            self._give_up(f"the image's worker died {deaths} times without completing a job")
        elif self.lanes:
            self._move(WorkerEvent.PAUSE)
            self._start_timer = self._loop.call_later(pause_s, self._start_if_wanted)
        else:
            self._not_before_s = self._loop.time() + pause_s
            self._move(WorkerEvent.REST)

    def _start_if_wanted(self) -> None:
        if self._closing or not self.lanes:
            self._move(WorkerEvent.REST)
        else:
            self._start(self.lanes[0])

    def _give_up(self, reason: str) -> None:
        pause_s = self._house.settings.supervisor.backoff_s
        self.given_up += 1
        log.error("worker given up", extra=facts(export=self.key, reason=reason))
        self._not_before_s = self._loop.time() + pause_s
        self._move(WorkerEvent.REST)
        for lane in self.lanes:
            self._refuse(lane, reason, pause_s)

    def _refuse(self, lane: Lane, reason: str, retry_after_s: float) -> None:
        self._house.lanes.remove(lane)
        lane.front_end.send(LaneRefused(lane.number, reason, retry_after_s))

    def _close(self) -> None:
        self._closing = True
        if self._start_timer is not None:
            self._start_timer.cancel()
        if self._after_death is not None:
            self._after_death.cancel()

    def _move(self, event: WorkerEvent) -> None:
        old, self.state = self.state, WORKER_STATES[self.state, event]
        log.debug("worker's state", extra=facts(export=self.key, old=old.name, new=self.state.name))
        if self.state is WorkerState.ABSENT:
            if self._ledger is not None:
                self._forget_at_rest()
            self._at_rest(self)
