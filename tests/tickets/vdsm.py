"""A host's agent, as far as imageio's ticket service sees of it: oVirt's vdsm."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.harness.http import Answer, Client, connect
from tests.harness.servers import NbdServer

HOUR_S = 3600


class Vdsm:
    """Speaks to the ticket service at `path`, one connection a request as vdsm does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def connect(self) -> socket.socket:
        """A connection without a request."""
        return connect(self.path)

    def ask(self, method: str, ticket_id: str = "", body: object = None) -> Answer:
        """A request for a ticket, or for all of them; a body that is not bytes is sent as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        with Client(self.path) as client:
            try:
                client.request(method, f"/tickets/{ticket_id}", data)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it has heard enough, and answered
            return client.read_answer(client.getresponse())

    def install(self, url: str, size: int, *ops: str, ticket_id: str = "", **more: object) -> str:
        """Install a ticket, which must be accepted; its id, a new one unless one is given."""
        ticket_id = ticket_id or str(uuid4())
        ticket = {"uuid": ticket_id, "size": size, "url": url, "timeout": HOUR_S, "ops": ops or ("write",), **more}
        answer = self.ask("PUT", ticket_id, ticket)
        assert (answer.status, answer.body) == (200, b""), answer
        return ticket_id

    def look(self, ticket_id: str) -> dict[str, Any]:
        """The ticket's state."""
        answer = self.ask("GET", ticket_id)
        assert answer.status == 200, answer
        state: dict[str, Any] = answer.json()
        return state

    def extend(self, ticket_id: str, timeout: int) -> None:
        """Have it expire in so many seconds."""
        answer = self.ask("PATCH", ticket_id, {"timeout": timeout})
        assert (answer.status, answer.body) == (200, b""), answer

    def remove(self, ticket_id: str = "") -> None:
        """Remove it, or all, which must succeed."""
        answer = self.ask("DELETE", ticket_id)
        assert (answer.status, answer.body) == (204, b""), answer


def nbd_url(server: NbdServer) -> str:
    """A server's URL as imageio's clients give it."""
    return f"nbd:unix:{server.socket}"
