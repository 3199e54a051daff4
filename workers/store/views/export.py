"""The disk in a library image as a worker's connection: NBD, to a server of the worker's own (server.py)."""

from __future__ import annotations

import socket

from config.export import Export
from config.settings import WorkerSettings
from workers.image.connection import Owner, State
from workers.image.loop import Loop
from workers.image.nbd_export import NbdConnection
from workers.store.views.server import ViewServer


class View:
    """An image's server, and the worker's connections to it."""

    def __init__(self, export: Export, loop: Loop) -> None:
        self.server = ViewServer(export, loop)
        self.connections: set[ViewConnection] = set()


class ViewConnection(NbdConnection):
    """One of the connections to the server of `view`, which is started by the first of them and ends with the last."""

    def __init__(
        self, number: int, view: View, settings: WorkerSettings, loop: Loop, owner: Owner, connect_s: float
    ) -> None:
        super().__init__(number, Export("unix"), None, settings, loop, owner, connect_s)
        self._view = view
        self._leaving = False

    def _connect(self, sock: socket.socket) -> int:
        self._view.connections.add(self)
        return sock.connect_ex(self._view.server.address())

    def leave(self) -> None:
        """Say goodbye, and to the server, too, if nobody else has it."""
        self._leaving = True
        super().leave()

    def break_off(self, why: str) -> None:
        """End it now. A server that nobody gets an answer from is no use any more: the next connection has another."""
        if self.state in (State.CLOSED, State.FENCING):
            return
        self._view.connections.discard(self)
        if not any(other.state is State.READY for other in self._view.connections):
            # What it said tells more than that the connection was reset.
            self._why = self._view.server.end(self._leaving) or self._why
        super().break_off(why)
