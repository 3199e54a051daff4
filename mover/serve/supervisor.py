"""The supervisor: front ends, workers and tickets together, from the start to the last child's end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from config import log as logs
from config.errors import ConfigError
from config.log import facts
from config.reload import Reloaded, reloaded
from config.settings import Settings, TlsSettings
from mover.control.sources import Sources
from mover.serve.certificates import CertificateError, Certificates
from mover.serve.errors import CannotStart, Misbehaved
from mover.serve.front_ends import FrontEnds
from mover.serve.house_status import StatusPage
from mover.serve.image_workers import ImageWorkers
from mover.serve.inquiries import Inquiries, pieces
from mover.serve.lanes import FrontEndPort
from mover.serve.ledgers import Ledgers
from mover.serve.listeners import Listeners
from mover.serve.messages import About, Grant, Inquire, OpenLane, Revoke, TicketAnswer, TicketUse
from mover.serve.metrics import Metrics
from mover.serve.notify import Notifier
from mover.serve.programs import Programs
from mover.serve.readiness import silent, unready
from mover.serve.survey import survey
from mover.serve.tickets import TicketBook

log = logging.getLogger(__name__)

# Workers have no lanes left by then: what they finish is their own disconnecting.
LEAVE_S = 5.0
# A killed process ends at once unless the kernel holds it (a dead NFS server): it is not waited for for ever.
REAP_S = 5.0


@dataclass(frozen=True)
class House:
    """What was opened before root was given up."""

    settings: Settings
    listeners: Listeners
    certificates: Certificates | None
    notifier: Notifier


class Supervisor:
    """One `mover serve`; also the desk that front ends turn to."""

    def __init__(self, house: House, programs: Programs, reread: Callable[[], Settings]) -> None:
        settings, listeners = house.settings, house.listeners
        self._settings = settings
        self._reread = reread
        self._listeners = listeners
        self._notifier = house.notifier
        self._watching: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        ledgers = Ledgers(os.path.join(settings.serve.state_dir, "ledgers"), lambda: self._sources.transfers())
        self._workers = ImageWorkers(programs, settings, ledgers)
        self._tickets = TicketBook()
        self._certificates = house.certificates
        self._front_ends = FrontEnds(programs, settings, listeners, self._certificates, self._tickets, self)
        self._sources = Sources(settings, self._front_ends, self._workers)
        ledgers.sweep()
        self._stop: asyncio.Future[None] = self._loop.create_future()
        self._hurry: asyncio.Future[int] = self._loop.create_future()
        metrics = Metrics(settings, self._front_ends, self._workers, self._tickets)
        self._inquiries = Inquiries(
            {
                "workers": lambda: survey(self._workers),
                "metrics": metrics.page,
                "ready": self._readiness,
                "status": StatusPage(self._front_ends, self._workers, self._tickets, listeners, self._unready).page,
            }
        )
        self._looking: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Serve until a signal; the exit status. Raises CannotStart."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_signal, number)
        self._loop.add_signal_handler(signal.SIGHUP, self.reload)
        self._front_ends.ready.add_done_callback(self._on_ready)
        self._front_ends.start()
        try:
            await self._stop
            leaving = self._loop.create_task(self._leave())
            done, _ = await asyncio.wait({leaving, self._hurry}, return_when=asyncio.FIRST_COMPLETED)
            leaving.cancel()
            return done.pop().result()
        finally:
            await self._kill()
            self._sources.end()

    # -- the desk --------------------------------------------------------------------------------------------

    def open_lane(self, front_end: FrontEndPort, message: OpenLane) -> None:
        """A front end needs a lane. Raises Misbehaved for a number that is taken, or an arena of no size."""
        if message.arena_bytes <= 0 or self._workers.has_lane(front_end, message.lane):
            raise Misbehaved(f"lane {message.lane} is open already, or its arena is empty")
        self._workers.open_lane(front_end, message, self._tickets.names)

    def close_lane(self, front_end: FrontEndPort, number: int) -> None:
        """A front end needs a lane no more."""
        self._workers.close_lane(front_end, number)

    def close_lanes(self, front_end: FrontEndPort) -> None:
        """A front end is dead."""
        self._workers.close_lanes(front_end)

    def tickets_used(self, uses: Sequence[TicketUse]) -> None:
        """Requests use these tickets, or did just now."""
        self._sources.used(uses)

    def ticket_first_used(self, version: int, client: str) -> None:
        """The first request with this ticket has come to a front end."""
        self._sources.first_used(version, client)

    def ask_ticket(self, front_end: FrontEndPort, ticket_id: str) -> None:
        """A client of a front end wants an id that has no ticket there."""
        looking = self._loop.create_task(self._look(front_end, ticket_id))
        self._looking.add(looking)
        looking.add_done_callback(self._looking.discard)

    async def _look(self, front_end: FrontEndPort, ticket_id: str) -> None:
        await self._sources.look(ticket_id)
        front_end.send(TicketAnswer(ticket_id))

    def order(self, front_end: FrontEndPort, message: Grant | Revoke | Inquire) -> None:
        """The library of a front end gives a client a ticket, takes one away, or asks for some."""
        ordering = self._loop.create_task(self._order(front_end, message))
        self._looking.add(ordering)
        ordering.add_done_callback(self._looking.discard)

    async def _order(self, front_end: FrontEndPort, message: Grant | Revoke | Inquire) -> None:
        for piece in pieces(message.question, msgspec.json.encode(await self._sources.order(message))):
            front_end.send(piece)

    def ask(self, front_end: FrontEndPort, question: int, about: About) -> None:
        """A front end's client wants to know something of the whole house."""
        self._inquiries.ask(front_end, question, about)

    async def _unready(self) -> list[str]:
        """What is not as it should be."""
        if self._stop.done():
            return ["the service is stopping"]
        return await unready(self._front_ends, self._workers, self._settings.serve.state_dir)

    async def _readiness(self) -> bytes:
        return msgspec.json.encode(await self._unready())

    # -- SIGHUP ----------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read the configuration again, and put in force what can be changed while the service runs.

        A configuration that cannot be used changes nothing. What does not come from settings but from files that they
        name (certificates) is read again here, too, whether or not a setting has changed.
        """
        self._notifier.reloading()
        try:
            after = reloaded(self._settings, self._reread())
        except ConfigError as error:
            log.error("configuration not reloaded, the old one stays in force", extra=facts(why=error))
        else:
            self._put_in_force(after)
        self._notifier.ready(self._summary)

    def _put_in_force(self, after: Reloaded) -> None:
        self._settings = after.settings
        logs.setup(after.settings.log, "supervisor")
        self._sources.retune(after.settings)
        self._workers.retune(after.settings)
        self._front_ends.retune(after.settings)
        self._renew_certificates()
        log.info("configuration reloaded", extra=facts(changed=",".join(after.changed) or "nothing"))
        if after.waiting:
            log.warning("settings changed that need a restart", extra=facts(settings=",".join(after.waiting)))

    @property
    def _summary(self) -> str:
        """What the service does, for people, on one line."""
        workers = sum(worker.pid is not None for worker in self._workers)
        return f"serving {len(self._tickets)} tickets on {self._listeners.addresses} with {workers} workers"

    async def _watch(self, pause_s: float) -> None:
        """Tell the service manager that we live, while all parts answer: it restarts us when we do not."""
        while True:
            faults = await silent(self._front_ends)
            if not faults:
                self._notifier.alive()
            self._notifier.status("; ".join(faults) or self._summary)
            await asyncio.sleep(pause_s)

    def _renew_certificates(self) -> None:
        """Read them again; those that cannot be used leave the old ones in force."""
        if self._certificates is None:
            return
        try:
            fresh = Certificates(self._settings.tls)
        except CertificateError as error:
            log.error("certificates not renewed, the old ones stay in force", extra=facts(why=error))
            return
        self._front_ends.renew(fresh)
        self._certificates.close()
        self._certificates = fresh
        log.info("certificates renewed", extra=facts(cert_file=self._settings.tls.cert_file))

    # -- signals and the end ---------------------------------------------------------------------------------

    def _on_ready(self, ready: asyncio.Future[None]) -> None:
        error = ready.exception()
        if error is None:
            self._workers.spare.prepare()
            self._sources.start(self._listeners)
            self._notifier.ready(self._summary)
            if self._notifier.watchdog_s is not None:
                self._watching = self._loop.create_task(self._watch(self._notifier.watchdog_s))
            print(f"mover: ready on {self._listeners.addresses}", file=sys.stderr, flush=True)
        elif not self._stop.done():
            self._stop.set_exception(error)

    def _on_signal(self, number: signal.Signals) -> None:
        """The first signal drains, the second one ends at once."""
        log.info("stopping", extra=facts(signal=number.name, at_once=self._stop.done()))
        self._notifier.stopping("finishing what is in flight")
        if not self._stop.done():
            self._stop.set_result(None)
        elif not self._hurry.done():
            self._hurry.set_result(130 if number == signal.SIGINT else 0)

    async def _leave(self) -> int:
        """Front ends first, since what they finish needs workers; then the workers."""
        self._sources.close()
        self._listeners.close()
        await self._front_ends.drain(self._settings.serve.drain_s)
        try:
            async with asyncio.timeout(LEAVE_S):
                await self._workers.leave()
        except TimeoutError:
            log.warning("workers did not leave in time", extra=facts(deadline_s=LEAVE_S))
        return 0

    async def _kill(self) -> None:
        """Nothing is left behind, however the end came."""
        self._inquiries.close()
        if self._watching is not None:
            self._watching.cancel()
        try:
            async with asyncio.timeout(REAP_S):
                await self._front_ends.kill()
                await self._workers.kill()
        except TimeoutError:
            log.error("a killed child is held by the kernel", extra=facts(deadline_s=REAP_S))


def read_certificates(settings: TlsSettings) -> Certificates | None:
    """What TLS is spoken with, None if it is not. Raises CannotStart."""
    try:
        return Certificates(settings) if settings.enabled else None
    except CertificateError as error:
        raise CannotStart("speak TLS", str(error), "see --tls-cert-file, --tls-key-file and [tls]") from error
