"""Where tickets come from: the settings, both control sockets, a directory of files."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable

from config.allow import roots_of
from config.export_url import parse_export
from config.settings import Settings
from mover.control.cloudstack import ControlSocket
from mover.control.gate import Gate
from mover.control.grants import Grants
from mover.control.http_socket import HttpSocket
from mover.control.peers import Peers
from mover.control.port import TicketPort, TransferPort
from mover.control.registry import Registry
from mover.control.store import TicketStore
from mover.control.ticket_service import TicketService
from mover.control.transfer_dir import TransferDir
from mover.serve.listeners import Listeners
from mover.serve.messages import Grant, Granted, Inquire, Revoke, Ticket, TicketUse


class Sources:
    """The sources that the settings ask for."""

    def __init__(self, settings: Settings, tickets: TicketPort, transfers: TransferPort) -> None:
        """Put in force what the settings say and what is kept. Raises CannotStart."""
        serve = settings.serve
        store = TicketStore(serve.state_dir)
        self._gate = Gate(settings.allow, roots_of(settings), settings.store)
        self._registry = Registry(tickets, transfers, store, self._gate, settings.control.tickets_most)
        self._service = TicketService(self._registry, settings.control.cancel_s)
        self._grants = Grants(self._registry)
        peers = Peers(settings.control)
        self._tickets_socket = HttpSocket(self._service.answer, peers)
        self._control_socket = ControlSocket(self._registry, peers)
        self._directory: TransferDir | None = None
        self._tasks: list[asyncio.Task[None]] = []
        ids = {image.id for image in settings.image}
        self._registry.keep_numbers("settings", lambda ticket_id: ticket_id in ids)
        for image in settings.image:
            export = parse_export(image.url)
            number = self._registry.number("settings", image.id, export)
            tickets.install(Ticket(image.id, 0, export, transfer=number))
        self._registry.resume()
        if serve.transfer_dir:
            self._directory = TransferDir(serve.transfer_dir, tickets, self._registry, self._gate)

    def start(self, listeners: Listeners) -> None:
        """The front ends serve: answer on the control sockets, and look after what is in force."""
        self._run(self._registry.save_for_ever())
        if self._directory is not None:
            self._run(self._directory.poll_for_ever())
        if listeners.control is not None:
            self._run(self._control_socket.start(listeners.control))
        if listeners.tickets is not None:
            self._run(self._tickets_socket.start(listeners.tickets))

    def retune(self, settings: Settings) -> None:
        """Judge by other allow-lists what is installed from now on."""
        self._gate.retune(settings)

    def close(self) -> None:
        """No change of tickets any more."""
        self._control_socket.close()
        self._tickets_socket.close()
        self._service.close()
        for task in self._tasks:
            task.cancel()
        self._registry.close()

    def end(self) -> None:
        """Nobody uses anything any more."""
        self._registry.end()

    def transfers(self) -> set[int]:
        """Those that somebody may still ask for."""
        return self._registry.transfers()

    def used(self, uses: Iterable[TicketUse]) -> None:
        """Requests use these, or did just now."""
        self._registry.used(uses)

    def first_used(self, version: int, client: str) -> None:
        """The first request with a ticket has come to a front end, from this client."""
        self._registry.first_used(version, client)

    async def look(self, ticket_id: str) -> None:
        """A client wants this id: install its ticket if there is one to be had. The id may be anything."""
        if self._directory is not None:
            await self._directory.look(ticket_id)

    async def order(self, message: Grant | Revoke | Inquire) -> Granted:
        """What the library of a front end wants done with its tickets."""
        return await self._grants.order(message)

    def _run(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))
