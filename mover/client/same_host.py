"""Whether the server at the other end of a TCP connection is the one that listens on a Unix socket here.

Equal addresses prove nothing: the other end may be a tunnel to another host, whose Unix socket of that path is another
server's. So it must be the same process, or one of its children (Mover's front ends): the kernel names the process that
listens on the Unix socket, and one of them must hold the other end of the TCP connection. Who may not look at the
server's descriptors cannot tell, and stays with TCP.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

import psutil

# process 1 listens for services that it activates, and says nothing about which one answers
INIT = 1


def same_server(tcp: socket.socket, unix: socket.socket) -> bool:
    """Whether both sockets are connected to processes of one server on this host."""
    theirs, ours = tcp.getpeername()[:2], tcp.getsockname()[:2]
    if theirs[0] != ours[0]:
        return False
    pid = int.from_bytes(unix.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)
    if pid <= INIT:
        return False
    try:
        listener = psutil.Process(pid)
        return any(_holds(process, theirs, ours) for process in (listener, *listener.children(recursive=True)))
    except psutil.Error:
        return False


def _holds(process: psutil.Process, own: tuple[str, int], peer: tuple[str, int]) -> bool:
    try:
        connections = process.net_connections("tcp")
    except psutil.Error:
        return False
    ends = [(tuple(connection.laddr), tuple(connection.raddr)) for connection in connections]
    return any(_plain(end[0]) == own and _plain(end[1]) == peer for end in ends)


def _plain(address: tuple[Any, ...]) -> tuple[Any, ...]:
    """An IPv4 address as IPv4, also where the socket is of IPv6; empty where a socket is not connected."""
    return (str(address[0]).removeprefix("::ffff:"), *address[1:]) if address else ()
