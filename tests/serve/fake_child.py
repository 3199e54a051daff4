"""What the fake front end and the fake worker share: a poll loop, and a line to the test.

Every event is a JSON datagram to the socket that the environment's FAKE_STAGE names; commands come back to the
socket that sent it. FAKE_FRONT and FAKE_WORKER name misdeeds, separated by commas.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
from collections.abc import Callable


class Stagehand:
    """The fake's own end: reports events, polls sockets, runs commands."""

    def __init__(self, who: str) -> None:
        self.who = who
        self.misdeeds = os.environ.get(f"FAKE_{who.upper()}", "").split(",")
        self.control = socket.socket(fileno=int(sys.argv[sys.argv.index("--control-fd") + 1]))
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._line.bind("")  # an abstract name of the kernel's choice
        self._line.connect(os.environ["FAKE_STAGE"])
        self._handlers: dict[int, Callable[[], None]] = {}
        self._poll = select.poll()

    def report(self, event: str, **values: object) -> None:
        """Tell the test."""
        self._line.send(json.dumps({"who": self.who, "pid": os.getpid(), "event": event, **values}).encode())

    def watch(self, fd: int, handler: Callable[[], None]) -> None:
        """Call `handler` whenever `fd` is readable or at its end."""
        self._handlers[fd] = handler
        self._poll.register(fd, select.POLLIN)

    def ignore(self, fd: int) -> None:
        """Watch it no more."""
        del self._handlers[fd]
        self._poll.unregister(fd)

    def run(self, command: Callable[[dict[str, object]], None]) -> None:
        """Poll for ever; `command` gets what the test orders."""
        self.watch(self._line.fileno(), lambda: command(json.loads(self._line.recv(65536))))
        while True:
            for fd, _ in self._poll.poll():
                if fd in self._handlers:
                    self._handlers[fd]()
