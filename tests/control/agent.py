"""CloudStack's agent, as far as the control socket sees of it."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from tests.harness.http import connect, read_to_end
from tests.harness.servers import NbdServer

Answer = dict[str, Any]


class Agent:
    """Speaks to the control socket at `path`, one connection a request."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def connect(self) -> socket.socket:
        """A connection without a request."""
        return connect(self.path)

    def send(self, request: bytes, *, half_close: bool = True) -> Answer:
        """Send these bytes and read the answer, which must be one line, and the end."""
        with self.connect() as sock:
            try:
                sock.sendall(request)
                if half_close:
                    sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it has heard enough, and answered
            return read_answer(sock)

    def ask(self, action: str, **values: object) -> Answer:
        """A request that ends with a newline."""
        return self.send(json.dumps({"action": action, **values}).encode() + b"\n", half_close=False)

    def register(self, transfer_id: str, server: NbdServer, **config: object) -> Answer:
        """Register an export of a server."""
        return self.ask("register", transfer_id=transfer_id, config={"socket": str(server.socket), **config})

    def unregister(self, transfer_id: str) -> Answer:
        """Unregister it; returns when nothing of it is in flight."""
        return self.ask("unregister", transfer_id=transfer_id)

    def active(self) -> int:
        """The number of transfers that `status` tells."""
        answer = self.ask("status")
        assert answer["status"] == "ok"
        number: int = answer["active_transfers"]
        return number


def ok(active: int) -> Answer:
    """The answer to what could be done."""
    return {"status": "ok", "active_transfers": active}


def error(message: str) -> Answer:
    """The answer to what could not."""
    return {"status": "error", "message": message}


def read_answer(sock: socket.socket) -> Answer:
    """The line that answers, and nothing after it."""
    received = read_to_end(sock)
    assert received.count(b"\n") == 1, received
    assert received.endswith(b"\n"), received
    answer: Answer = json.loads(received)
    return answer
