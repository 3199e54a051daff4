"""A channel: msgspec messages and descriptors over one SOCK_SEQPACKET Unix socket.

Every pair of Mover's processes that talk does so over a channel: supervisor and front end, supervisor and
worker, front end and worker (the lane's socket). A message is one packet, so half a message is never read;
descriptors travel with it (`SCM_RIGHTS`) and arrive close-on-exec. The channel never blocks: what the
socket does not take waits in a bounded backlog until the owner's event loop calls `flush`.
"""

from __future__ import annotations

import array
import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec

# One packet must fit the kernel's default socket buffer (208 KiB), so larger news is sent in pieces.
PACKET_BYTES = 128 * 1024
FDS_PER_PACKET = 8
BACKLOG_PACKETS = 4096

Received = TypeVar("Received")


class ChannelClosed(ConnectionError):
    """The other end is gone, or this one was closed."""


class ChannelBroken(ConnectionError):
    """The other end does not speak our language, or stopped listening: drop it."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Channel(Generic[Received]):
    """One end of a channel; `received` is the type (a tagged union) of the messages that arrive."""

    def __init__(self, sock: socket.socket, received: Any) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(received).decode
        self._backlog: deque[tuple[bytes, list[int]]] = deque()

    def fileno(self) -> int:
        """The socket's descriptor, -1 once closed."""
        return self._sock.fileno()

    @property
    def backlog(self) -> int:
        """Packets waiting for `flush`."""
        return len(self._backlog)

    def send(self, message: msgspec.Struct, fds: Sequence[int] = ()) -> None:
        """Send `message` with duplicates of `fds` (the caller keeps its own); queue what the socket refuses.

        Raises ChannelClosed when the other end is gone, ChannelBroken when it has stopped reading.
        """
        packet = self._encode(message)
        if len(packet) > PACKET_BYTES:
            raise ValueError(f"message of {len(packet)} bytes, at most {PACKET_BYTES}")
        if not self._backlog and self._try_send(packet, fds):
            return
        if len(self._backlog) >= BACKLOG_PACKETS:
            raise ChannelBroken(f"{BACKLOG_PACKETS} messages unread")
        self._backlog.append((packet, [os.dup(fd) for fd in fds]))

    def flush(self) -> bool:
        """Send what waits; True when nothing is left."""
        while self._backlog:
            packet, fds = self._backlog[0]
            if not self._try_send(packet, fds):
                return False
            self._backlog.popleft()
            for fd in fds:
                os.close(fd)
        return True

    def _try_send(self, packet: bytes, fds: Sequence[int]) -> bool:
        try:
            socket.send_fds(self._sock, [packet], list(fds))
        except BlockingIOError:
            return False
        except OSError as error:
            raise ChannelClosed(str(error)) from error
        return True

    def receive(self) -> tuple[Received, list[int]] | None:
        """The next message and its descriptors (now the caller's), or None when nothing waits.

        Raises ChannelClosed at the end of the stream, ChannelBroken on a packet that is no message.
        """
        room = socket.CMSG_LEN(FDS_PER_PACKET * array.array("i").itemsize)
        try:
            packet, ancillary, flags, _ = self._sock.recvmsg(PACKET_BYTES, room, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return None
        except OSError as error:
            raise ChannelClosed(str(error)) from error
        fds = _descriptors(ancillary)
        if not packet:
            _close_all(fds)
            raise ChannelClosed("the other end closed the channel")
        try:
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise ChannelBroken("a truncated packet")
            return self._decode(packet), fds
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            _close_all(fds)
            raise ChannelBroken(f"not a message: {error}") from error
        except ChannelBroken:
            _close_all(fds)
            raise

    def close(self) -> None:
        """Close the socket and every descriptor that still waits to be sent."""
        for _, fds in self._backlog:
            _close_all(fds)
        self._backlog.clear()
        self._sock.close()


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets for a channel's two ends."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
