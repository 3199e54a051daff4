"""Listening sockets that systemd has bound and passes on: sd_listen_fds(3), which is three variables."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from msgspec.structs import replace

from config.settings import ServeSettings
from mover.serve.errors import CannotStart

# Descriptors that are passed begin here.
FIRST_FD = 3
# FileDescriptorName, and the setting whose place the socket takes.
ROLES = {"http": "", "unix": "unix_socket", "control": "control_socket", "ticket": "ticket_socket"}
WHAT = "take the sockets that the service manager passes"
ADVICE = f"name them {', '.join(ROLES)} with FileDescriptorName, or give their paths in the settings"

Passed = Mapping[str, socket.socket]


def passed_sockets(environ: Mapping[str, str], settings: ServeSettings) -> Passed:
    """The sockets by their role, as ROLES has it. Raises CannotStart.

    What is not named by a role is `http` if it is TCP, else what the settings have at its path, else `unix`.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, socket.socket] = {}
    for number in range(int(environ.get("LISTEN_FDS", "0"))):
        os.set_inheritable(FIRST_FD + number, False)
        sock = socket.socket(fileno=FIRST_FD + number)
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise CannotStart(WHAT, f"descriptor {FIRST_FD + number} does not listen", ADVICE)
        role = _role(names[number] if number < len(names) else "", sock, settings)
        if role in found:
            raise CannotStart(WHAT, f"two of them are {role}", ADVICE)
        found[role] = sock
    return found


def _role(name: str, sock: socket.socket, settings: ServeSettings) -> str:
    is_unix = sock.family == socket.AF_UNIX
    if name in ROLES:
        if is_unix is (name == "http"):
            raise CannotStart(WHAT, f"{name} is {'a Unix socket' if is_unix else 'no Unix socket'}", ADVICE)
        return name
    if not is_unix:
        return "http"
    paths = {getattr(settings, setting): role for role, setting in ROLES.items() if setting}
    return paths.get(sock.getsockname(), "unix")


def with_paths(settings: ServeSettings, passed: Passed) -> ServeSettings:
    """The settings with the paths of the sockets that were passed."""
    paths = {ROLES[role]: sock.getsockname() for role, sock in passed.items() if ROLES[role]}
    return replace(settings, **paths)
