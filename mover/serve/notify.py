"""What systemd is told, if it started us: sd_notify(3), which is a datagram of lines.

Nothing here is an error where systemd is not: then nobody is told.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """The way to the service manager."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """`environ` says where it is, and how often it wants a sign of life."""
        self._address = environ.get("NOTIFY_SOCKET", "")
        usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        wanted = usec.isdigit() and (not pid or pid == str(os.getpid()))
        # A third of the time that it allows, so that one late sign does no harm.
        self.watchdog_s: float | None = int(usec) / 3e6 if wanted and self._address else None

    def ready(self, status: str) -> None:
        """The service answers, or has finished a reload; `status` is for people."""
        self._tell("READY=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """What people read in `systemctl status`."""
        self._tell(f"STATUS={status}")

    def reloading(self) -> None:
        """A reload begins; `ready` says that it is over."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        """The end has begun."""
        self._tell("STOPPING=1", f"STATUS={status}")

    def alive(self) -> None:
        """All parts answer."""
        self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
                sock.sendto("\n".join(lines).encode(), address)
        except OSError:
            pass  # it does not listen: a service does not end for that
