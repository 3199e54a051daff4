"""Which process is at the other end of a Unix socket, and whether it still runs."""

from __future__ import annotations

import errno
import socket
import sys

# Where nobody can tell.
UNKNOWN = (0, 0)

# State and start time, counted after the program's name, which may hold anything.
_STATE, _STARTED = 0, 19


def of_peer(sock: socket.socket) -> tuple[int, int]:
    """(pid, start time in ticks) of the server at the other end, or UNKNOWN.

    The kernel names the process that began to listen. If that was pid 1, sockets are activated and it says
    nothing about the server.
    """
    pid = _pid(sock)
    started = _started(pid) if pid else 0
    return (pid, started) if started else UNKNOWN


def peer_is_gone(sock: socket.socket) -> bool:
    """Whether the server at the other end has ended since. Of an unknown one it cannot be said."""
    pid = _pid(sock)
    return bool(pid) and not _started(pid)


def is_gone(process: tuple[int, int]) -> bool:
    """Whether a process that was known has ended. Of an unknown one it cannot be said."""
    pid, started = process
    return process != UNKNOWN and _started(pid) != started


def _pid(sock: socket.socket) -> int:
    if sock.family != socket.AF_UNIX:
        return 0
    pid = int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)
    return pid if pid > 1 else 0


def _started(pid: int) -> int:
    """When a process was started, in ticks; 0 if there is none, or nothing but its status is left."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[_STATE] in (b"Z", b"X") else int(fields[_STARTED])


def is_qemu(pid: int) -> bool:
    """Whether the process is a qemu or a qemu-nbd, by its name."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as comm:
            return comm.read().startswith(b"qemu")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EACCES, errno.ESRCH):
            return False
        raise
