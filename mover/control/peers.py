"""Who is at the other end of a control socket, and who may be."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass

CREDENTIALS = struct.Struct("=iII")


@dataclass(frozen=True)
class Peer:
    """The process that connected, as the kernel names it."""

    pid: int
    uid: int
    gid: int

    @staticmethod
    def of(writer: asyncio.StreamWriter) -> Peer:
        """The other end of this connection."""
        sock: socket.socket = writer.get_extra_info("socket")
        return Peer(*CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)))
