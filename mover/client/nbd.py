"""An NBD connection with many commands in flight, driven by the one thread that uses it. Imports libnbd."""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Callable

from workers.nbd_handle import BASE_ALLOCATION, READS, WRITES, Extents, NbdError, NbdHandle

HANDSHAKE_S = 15.0
COMMAND_S = 120.0
# One block-status query: qemu refuses more than 4 GiB, and 2 GiB is what all servers answer.
STATUS_BYTES = 2 << 30
ZERO_BIT = 2

Ended = Callable[[], None]


class NbdConnection:
    """Reads are sent by `read`, end in any order, and are awaited by `wait` or `drain`.

    Each takes what is to be called when it has ended well; until then its buffer is libnbd's. The first error is
    raised by whatever is called next, and the connection is of no use then. Raises NbdError everywhere.
    """

    def __init__(self, sock: socket.socket, export: str = "") -> None:
        """Shake hands on a connected socket, which is this connection's from here on."""
        self._handle = NbdHandle(export)
        self._poll = select.poll()
        self._watched = 0
        self.in_flight = 0
        sock.setblocking(False)
        self._fd = sock.detach()
        self._handle.connect(self._fd)
        deadline = time.monotonic() + HANDSHAKE_S
        self._until(self._handle.negotiating, deadline)
        self._handle.list_bitmaps()
        self._until(self._handle.listed, deadline)
        self._handle.go()
        self._until(self._handle.went, deadline)
        self.size_bytes = self._handle.size_bytes()
        self.most_bytes = self._handle.most_bytes()

    def read(self, offset: int, buffer: memoryview, ended: Ended) -> None:
        """Begin to fill `buffer` from `offset`."""
        self.in_flight += 1
        self._handle.pread(buffer, offset, ended)

    def extents(self) -> list[tuple[int, int, bool]]:
        """The whole export as (offset, length, reads as zeros), neighbours joined."""
        found: list[tuple[int, int, bool]] = []
        at = 0
        while at < self.size_bytes:
            for length, zero in self._status(at):
                length = min(length, self.size_bytes - at)
                if found and found[-1][2] == zero:
                    start, before, _ = found.pop()
                    found.append((start, before + length, zero))
                elif length:
                    found.append((at, length, zero))
                at += length
        return found

    def _status(self, at: int) -> list[tuple[int, bool]]:
        length = min(STATUS_BYTES, self.size_bytes - at)
        if not self._handle.has_extents():
            return [(length, False)]
        self._handle.block_status(length, at, _nothing)
        self.in_flight += 1
        extents: Extents = {}
        while self.in_flight:
            self._step()
            extents = self._collect() or extents
        runs = [(run, bool(flags & ZERO_BIT)) for run, flags in extents.get(BASE_ALLOCATION, [])]
        if not any(run for run, _ in runs):
            raise NbdError("it says nothing about its extents", errno.EIO)
        return runs

    def wait(self) -> None:
        """Return when at least one command has ended; at once if none is in flight."""
        before = self.in_flight
        while self.in_flight and self.in_flight == before:
            self._step()
            self._collect()

    def pump(self) -> None:
        """Do what can be done without waiting."""
        if self.in_flight:
            self._step(wait=False)
            self._collect()

    def drain(self) -> None:
        """Return when no command is in flight."""
        while self.in_flight:
            self.wait()

    def close(self) -> None:
        """Leave; commands in flight are given up first, since some servers crash otherwise."""
        try:
            self.drain()
            self._handle.disconnect()
            self._until(self._handle.dead, time.monotonic() + HANDSHAKE_S)
        except NbdError:
            pass  # it is gone already
        del self._handle  # and with it the socket

    # -- the loop --------------------------------------------------------------------------------------------

    def _until(self, true: Callable[[], bool], deadline: float) -> None:
        while not true():
            if time.monotonic() > deadline:
                raise NbdError("no answer in time", errno.ETIMEDOUT)
            if self._handle.dead():
                raise NbdError("the server closed the connection", errno.ENOTCONN)
            self._step()

    def _step(self, *, wait: bool = True) -> None:
        """Wait for the socket, once, and let libnbd go on."""
        direction = self._handle.direction()
        events = (select.POLLIN if direction & READS else 0) | (select.POLLOUT if direction & WRITES else 0)
        if not events:
            raise NbdError("the server closed the connection", errno.ENOTCONN)
        if events != self._watched:
            self._poll.register(self._fd, events)
            self._watched = events
        ready = self._poll.poll(COMMAND_S * 1000 if wait else 0)
        if not ready:
            if wait:
                raise NbdError("no answer in time", errno.ETIMEDOUT)
            return
        if ready[0][1] & ~select.POLLOUT and direction & READS:
            self._handle.notify_read()
        elif ready[0][1] & select.POLLOUT:
            self._handle.notify_write()
        else:
            raise NbdError("the server closed the connection", errno.ENOTCONN)

    def _collect(self) -> Extents | None:
        extents = None
        ended = self._handle.ended
        while ended:
            token, error, found = ended.popleft()
            self.in_flight -= 1
            if error:
                raise NbdError(os.strerror(error), error)
            extents = found if found is not None else extents
            token()
        return extents


def _nothing() -> None:
    """For commands whose end is all that matters."""


def connected(path: str) -> socket.socket:
    """A socket connected to a server's Unix socket. Raises NbdError."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(HANDSHAKE_S)
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise NbdError(f"cannot connect: {error.strerror}", error.errno or errno.EIO) from error
    return sock
