"""A look at a running service, by its Unix socket: what it says of itself, and how fast its bytes move."""

from __future__ import annotations

import http.client
import json
import socket
import time
from typing import Any, NamedTuple

from mover.cli.status import CannotStartError

ANSWER_S = 15.0

Row = dict[str, Any]


class Look(NamedTuple):
    """What was there at one moment: `/status`, `/workers`, and the clock's reading."""

    status: Row
    workers: list[Row]
    at_s: float


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ANSWER_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(ANSWER_S)
        self.sock.connect(self._path)


def look(path: str) -> Look:
    """Ask the service at this socket. Raises CannotStartError."""
    connection = _Connection(path)
    try:
        status, workers = _ask(connection, "/status"), _ask(connection, "/workers")
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise CannotStartError(
            f"status: {path}: {why.lower()}: start the service, or give its Unix socket with --socket"
        ) from error
    finally:
        connection.close()
    return Look(status, workers, time.monotonic())


def _ask(connection: http.client.HTTPConnection, target: str) -> Any:
    connection.request("GET", target)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise ValueError(f"{target} answers {answer.status}")
    return json.loads(body)


def with_rates(before: Look, now: Look) -> Look:
    """The later look with what moved in between, in bytes per second: `in_rate`, `out_rate`, `read_rate`, ….

    A process that was replaced in between has counted from 0: it is shown as if nothing had moved.
    """
    seconds = max(now.at_s - before.at_s, 1e-6)
    status = _rated(now.status, before.status, seconds, {"in_rate": "bytes_in", "out_rate": "bytes_out"})
    old = {row["transfer"]: row for row in before.status["transfers"]}
    names = {"in_rate": "bytes_in", "out_rate": "bytes_out"}
    status["transfers"] = [
        _rated(row, old.get(row["transfer"], row), seconds, names) for row in now.status["transfers"]
    ]
    exports = {row["export"]: row for row in before.workers}
    names = {"read_rate": "bytes_read", "written_rate": "bytes_written"}
    workers = [_rated(row, exports.get(row["export"], row), seconds, names) for row in now.workers]
    return Look(status, workers, now.at_s)


def _rated(now: Row, before: Row, seconds: float, names: dict[str, str]) -> Row:
    rates = {rate: round(max(0, (now[count] or 0) - (before[count] or 0)) / seconds) for rate, count in names.items()}
    return {**now, **rates}
