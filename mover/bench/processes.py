"""Servers as child processes: started, waited for, ended."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen, TimeoutExpired
from typing import TypeVar

from mover.bench.errors import StartError

T = TypeVar("T")

READY_S = 20.0
POLL_S = 0.005
# More than Mover's default drain deadline of 30 s would only hide a server that does not stop.
STOP_S = 10.0


class Server:
    """A running server process, called `name` in errors; what it prints goes to the file `log`."""

    def __init__(self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None) -> None:
        self.name = name
        self.log = log
        # A session of its own: Ctrl-C reaches the bench alone, which then ends its servers in the right order.
        with log.open("wb") as output:
            self.process = Popen(
                command, stdin=DEVNULL, stdout=output, stderr=STDOUT, env=environment, start_new_session=True
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def output(self) -> str:
        """Return all that the server has printed so far."""
        return self.log.read_text(errors="replace")

    def wait_until(self, ready: Callable[[], T | None]) -> T:
        """Ask `ready` until it returns something; StartError if the server exits or READY_S pass before."""
        deadline = time.monotonic() + READY_S
        while (answer := ready()) is None:
            if self.process.poll() is not None:
                self._fail(f"it exited with status {self.process.returncode}")
            if time.monotonic() > deadline:
                self._fail(f"it was not ready after {READY_S:g} s")
            time.sleep(POLL_S)
        return answer

    def _fail(self, why: str) -> None:
        raise StartError(self.name, why, self.output())

    def stop(self) -> None:
        """End the server: SIGTERM, a second one (which cuts Mover's drain short), SIGKILL."""
        for end in (self.process.terminate, self.process.terminate, self.process.kill):
            end()
            with contextlib.suppress(TimeoutExpired):
                self.process.wait(STOP_S)
                return


@contextlib.contextmanager
def running(
    name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run a server for the time of the block."""
    server = Server(name, command, log, environment)
    try:
        yield server
    finally:
        server.stop()
