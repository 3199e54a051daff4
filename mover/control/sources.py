"""Where tickets come from while the service runs: CloudStack's control socket, a directory of files."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Coroutine, Iterable

from config.settings import ServeSettings
from mover.control.cloudstack import ControlSocket
from mover.control.port import TicketPort
from mover.control.store import TransferStore
from mover.control.transfer_dir import TransferDir
from mover.control.transfers import Transfers


class Sources:
    """The sources that the settings ask for."""

    def __init__(self, settings: ServeSettings, tickets: TicketPort) -> None:
        """Put in force what is kept. Raises CannotStart."""
        self._transfers: Transfers | None = None
        self._control: ControlSocket | None = None
        self._directory: TransferDir | None = None
        self._tasks: list[asyncio.Task[None]] = []
        if settings.control_socket:
            self._transfers = Transfers(tickets, TransferStore(os.path.join(settings.state_dir, "transfers")))
            self._transfers.resume()
            self._control = ControlSocket(self._transfers)
        if settings.transfer_dir:
            self._directory = TransferDir(settings.transfer_dir, tickets)

    def start(self, control: socket.socket | None) -> None:
        """The front ends serve: answer on the control socket, and look after what is in force."""
        if self._transfers is not None:
            self._run(self._transfers.sweep_for_ever())
        if self._directory is not None:
            self._run(self._directory.poll_for_ever())
        if self._control is not None and control is not None:
            self._run(self._control.start(control))

    def close(self) -> None:
        """No change of tickets any more."""
        if self._control is not None:
            self._control.close()
        for task in self._tasks:
            task.cancel()

    def used(self, ticket_ids: Iterable[str]) -> None:
        """Requests use these, or did just now."""
        if self._transfers is not None:
            self._transfers.used(ticket_ids)

    def look(self, ticket_id: str) -> None:
        """A client wants this id: install its ticket if there is one to be had. The id may be anything."""
        if self._directory is not None:
            self._directory.look(ticket_id)

    def _run(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))
