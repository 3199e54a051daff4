"""The ticket service of a Mover on this host, as the command line speaks to it: HTTP over its Unix socket."""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import closing
from typing import Any
from urllib.parse import quote

from mover.cli.status import CannotStartError, UsageError

# Removing a ticket takes 60 s at most, anything else milliseconds.
PATIENCE_S = 70.0


class TicketServiceError(Exception):
    """The service refused; `status` is its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class TicketService:
    """The service at a socket's path. Every method raises CannotStartError when nobody answers there."""

    def __init__(self, path: str) -> None:
        self._path = path

    def install(self, ticket: dict[str, object]) -> None:
        """Put a ticket in force. Raises TicketServiceError."""
        self._ask("PUT", str(ticket["uuid"]), ticket)

    def tickets(self) -> list[dict[str, Any]]:
        """The state of all tickets."""
        found: list[dict[str, Any]] = self._ask("GET")
        return found

    def ticket(self, ticket_id: str) -> dict[str, Any]:
        """The state of one. Raises TicketServiceError."""
        found: dict[str, Any] = self._ask("GET", _needed(ticket_id))
        return found

    def extend(self, ticket_id: str, timeout_s: int) -> None:
        """Have one expire in so many seconds. Raises TicketServiceError."""
        self._ask("PATCH", _needed(ticket_id), {"timeout": timeout_s})

    def cancel(self, ticket_id: str) -> None:
        """Remove one, and end what is in flight. Raises TicketServiceError."""
        self._ask("DELETE", _needed(ticket_id))

    def _ask(self, method: str, ticket_id: str = "", body: object = None) -> Any:
        with closing(_Connection(self._path)) as connection:
            try:
                data = None if body is None else json.dumps(body)
                connection.request(method, f"/tickets/{quote(ticket_id, safe='')}", data)
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException) as error:
                why = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
                advice = "see that mover serve runs with --ticket-socket, and that you may use it"
                raise CannotStartError(f"ticket: cannot reach {self._path}: {why}: {advice}") from error
        if answer.status >= 300:
            raise TicketServiceError(answer.status, _message(content))
        return json.loads(content) if content else None


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(self._path)


def _needed(ticket_id: str) -> str:
    if not ticket_id:
        raise UsageError("ticket: an empty id means all tickets: name one")
    return ticket_id


def _message(content: bytes) -> str:
    try:
        return str(json.loads(content)["error"])
    except (ValueError, TypeError, KeyError):
        return content.decode(errors="replace")[:200] or "no reason was given"
