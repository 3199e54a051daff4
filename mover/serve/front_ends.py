"""All front ends: started, kept running, told of tickets, drained."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import count

from config.log import facts
from config.settings import Settings
from mover.front import counts, crowd
from mover.front.rates import RATES_BYTES
from mover.serve.certificates import Certificates
from mover.serve.errors import CannotStart
from mover.serve.front_end import Desk, FrontEnd, Inheritance
from mover.serve.listeners import Listeners
from mover.serve.messages import AskUses, NewCertificates, Retune, Ticket, Tickets, TicketsUsed, TicketUse
from mover.serve.programs import Programs
from mover.serve.questions import Question
from mover.serve.restarts import Backoff
from mover.serve.states import FrontEndState
from mover.serve.tallies import KeptTally
from mover.serve.tickets import TicketBook

log = logging.getLogger(__name__)

# A front end that dies so often before any start succeeded will not come: the start fails.
START_ATTEMPTS = 3
# Front ends keep the deadline themselves; this much later the supervisor ends those left over.
DRAIN_GRACE_S = 1.0
# A front end answers from its loop; whoever takes longer is in trouble.
ANSWER_S = 2.0


class FrontEnds:
    """As many front ends as the settings say; `ready` is done when all of them serve for the first time.

    `ready` fails with CannotStart when that is hopeless.
    """

    def __init__(
        self,
        programs: Programs,
        settings: Settings,
        listeners: Listeners,
        certificates: Certificates | None,
        tickets: TicketBook,
        desk: Desk,
    ) -> None:
        self._programs = programs
        self._settings = settings
        self._listeners = listeners
        self._certificates = certificates
        # Whose locks are the seats of mover/front/seats.py, and whose bytes its rates; it ends with this process.
        self._seats = os.memfd_create("mover-seats", os.MFD_CLOEXEC)
        os.ftruncate(self._seats, RATES_BYTES)
        self.tallies = {number: KeptTally(counts.LAYOUT) for number in range(1, settings.serve.front_ends + 1)}
        self._crowd = crowd.make(settings.serve.front_ends)
        self._tickets = tickets
        self._desk = desk
        self._loop = asyncio.get_running_loop()
        self._backoffs = {
            number: Backoff(settings.supervisor.backoff_s) for number in range(1, settings.serve.front_ends + 1)
        }
        self._running: dict[int, FrontEnd] = {}
        self.restarts = 0
        self._restarts: dict[int, asyncio.TimerHandle] = {}
        self._numbers = count(1)
        self._questions: dict[int, Question] = {}
        self._waits: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._none_left = asyncio.Event()
        self._closing = False
        self.ready: asyncio.Future[None] = self._loop.create_future()

    def start(self) -> None:
        """Start all of them."""
        for number in self._backoffs:
            self._start(number)

    def retune(self, settings: Settings) -> None:
        """Put other settings in force, in every front end that runs and all that will."""
        self._settings = settings
        for front_end in list(self._running.values()):
            front_end.send(Retune(settings.front, settings.limits, settings.log, settings.qos, settings.allow))

    def renew(self, certificates: Certificates) -> None:
        """Have every front end that runs, and all that will, speak TLS with these."""
        self._certificates = certificates
        for front_end in list(self._running.values()):
            front_end.send(NewCertificates(self._settings.tls), certificates.fds)

    def install(self, ticket: Ticket) -> int:
        """Push a ticket to every front end, for `applied` to wait for; the change's number."""
        change = self._tickets.install(ticket)
        self._push(change)
        return change.number

    def remove(self, ticket_id: str, cancel: bool = False) -> int:
        """Take a ticket out of force, if it is there; the change's number, 0 if it was not.

        `cancel` has the requests end that are in flight under this id.
        """
        change = self._tickets.remove(ticket_id, cancel)
        if change is None:
            return 0
        self._push(change)
        return change.number

    async def applied(self, number: int) -> None:
        """Wait until every live front end has applied the change of this number."""
        await self._wait(lambda: self._tickets.settled(number))

    async def released(self, ticket_id: str) -> None:
        """Wait until no request uses a ticket that was of this id when this was called, and no longer is."""
        versions = self._tickets.retired(ticket_id)
        await self._wait(lambda: self._tickets.is_released(versions))

    def __iter__(self) -> Iterator[FrontEnd]:
        return iter(list(self._running.values()))

    @property
    def wanted(self) -> int:
        """How many should serve."""
        return len(self._backoffs)

    def ticket(self, ticket_id: str) -> Ticket | None:
        """The ticket in force under this id."""
        return self._tickets.get(ticket_id)

    def of_version(self, version: int) -> Ticket | None:
        """The ticket of this version, in force or still in use."""
        return self._tickets.of_version(version)

    def versions(self, ticket_id: str) -> set[int]:
        """The versions of this id that requests may use: the one in force, and older ones that are not released."""
        ticket = self._tickets.get(ticket_id)
        return {*self._tickets.retired(ticket_id), *([ticket.version] if ticket is not None else [])}

    async def uses(self, versions: Sequence[int]) -> list[TicketUse] | None:
        """How all front ends use the tickets of these versions now; None if one of them does not say so in time."""
        asked = [one for one in self._running.values() if one.state is not FrontEndState.STARTED]
        question = Question(next(self._numbers), asked)
        self._questions[question.number] = question
        for front_end in asked:
            front_end.send(AskUses(question.number, list(versions)))
        try:
            async with asyncio.timeout(ANSWER_S):
                await question.done
        except TimeoutError:
            return None
        finally:
            del self._questions[question.number]
        return question.uses

    async def drain(self, deadline_s: float) -> None:
        """Ask all of them to finish and exit; returns when they have, those left over after the deadline killed."""
        self._close()
        for front_end in list(self._running.values()):
            front_end.drain(deadline_s)
        try:
            async with asyncio.timeout(deadline_s + DRAIN_GRACE_S):
                await self._none_left.wait()
        except TimeoutError:
            await self.kill("it did not drain in time")

    async def kill(self, why: str = "") -> None:
        """End all of them at once, and wait until they have ended."""
        self._close()
        for front_end in list(self._running.values()):
            front_end.kill(why)
        await self._none_left.wait()

    # -- what the front ends report --------------------------------------------------------------------------

    def front_end_ready(self, front_end: FrontEnd) -> None:
        """It serves: perhaps the last one to do so."""
        log.info("front end ready", extra=facts(front_end=front_end.number, pid=front_end.pid))
        states = [one.state for one in self._running.values()]
        if states.count(FrontEndState.READY) == len(self._backoffs) and not self.ready.done():
            self.ready.set_result(None)

    def front_end_moved_on(self) -> None:
        """What somebody waits for may be true now."""
        for holds, done in self._waits:
            if not done.done() and holds():
                done.set_result(None)
        self._waits = [(holds, done) for holds, done in self._waits if not done.done()]

    def front_end_answered(self, front_end: FrontEnd, answer: TicketsUsed) -> None:
        """It has answered AskUses, or a part of it."""
        question = self._questions.get(answer.question)
        if question is not None:
            question.answered(front_end, answer)

    def front_end_ended(self, front_end: FrontEnd, status: int) -> None:
        """It is gone: nobody waits for its acknowledgements, and another one takes its place."""
        del self._running[front_end.number]
        for question in self._questions.values():
            question.gone(front_end)
        crowd.clear(self._crowd, front_end.number)
        self.front_end_moved_on()
        if front_end.mixed_versions is not None:
            advice = "restart Mover after an upgrade, and see that one version of it is installed"
            self._hopeless("start", front_end.mixed_versions, advice)
        self._ended(front_end.number, f"ended with status {status}")

    # -- how they are kept running ---------------------------------------------------------------------------

    def _start(self, number: int) -> None:
        self._restarts.pop(number, None)
        self._backoffs[number].started(self._loop.time())
        try:
            self._running[number] = FrontEnd(
                number, self._programs, self._settings, self._inheritance(number), self._tickets, self._desk, self
            )
        except OSError as error:
            self._ended(number, f"could not be started: {error}")

    def _inheritance(self, number: int) -> Inheritance:
        certificates = self._certificates.fds if self._certificates is not None else ()
        return Inheritance(self._listeners, [self._seats, self._crowd, self.tallies[number].fd, *certificates])

    def _ended(self, number: int, how: str) -> None:
        if self._closing:
            self._check_none_left()
            return
        pause_s = self._backoffs[number].died(self._loop.time())
        self.restarts += 1
        log.error("front end ended", extra=facts(front_end=number, how=how, restart_in_s=pause_s))
        if self._backoffs[number].deaths >= START_ATTEMPTS:
            self._hopeless("start", f"front end {number} {how}, {START_ATTEMPTS} times", "see the lines above")
        self._restarts[number] = self._loop.call_later(pause_s, self._start, number)

    def _hopeless(self, what: str, why: str, advice: str) -> None:
        if not self.ready.done():
            self.ready.set_exception(CannotStart(what, why, advice))

    def _push(self, change: Tickets) -> None:
        for front_end in list(self._running.values()):
            front_end.push(change)

    async def _wait(self, holds: Callable[[], bool]) -> None:
        done = self._loop.create_future()
        self._waits.append((holds, done))
        self.front_end_moved_on()
        await done

    def _close(self) -> None:
        self._closing = True
        for timer in self._restarts.values():
            timer.cancel()
        self._check_none_left()

    def _check_none_left(self) -> None:
        if not self._running:
            self._none_left.set()
