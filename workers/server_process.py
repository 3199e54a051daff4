"""Which process is at the other end of a Unix socket, and whether it still runs."""

from __future__ import annotations

import errno
import socket
import sys

from config.processes import started

# Where nobody can tell.
UNKNOWN = (0, 0)


def of_peer(sock: socket.socket) -> tuple[int, int]:
    """(pid, start time in ticks) of the server at the other end, or UNKNOWN.

    The kernel names the process that began to listen. If that was pid 1, sockets are activated and it says
    nothing about the server.
    """
    pid = _pid(sock)
    begun = started(pid) if pid else 0
    return (pid, begun) if begun else UNKNOWN


def peer_is_gone(sock: socket.socket) -> bool:
    """Whether the server at the other end has ended since. Of an unknown one it cannot be said."""
    pid = _pid(sock)
    return bool(pid) and not started(pid)


def is_gone(process: tuple[int, int]) -> bool:
    """Whether a process that was known has ended. Of an unknown one it cannot be said."""
    pid, begun = process
    return process != UNKNOWN and started(pid) != begun


def _pid(sock: socket.socket) -> int:
    if sock.family != socket.AF_UNIX:
        return 0
    pid = int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)
    return pid if pid > 1 else 0


def is_qemu(pid: int) -> bool:
    """Whether the process is a qemu or a qemu-nbd, by its name."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as comm:
            return comm.read().startswith(b"qemu")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EACCES, errno.ESRCH):
            return False
        raise
