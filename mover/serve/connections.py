"""The duplicates of a worker's NBD sockets, kept for the fence."""

from __future__ import annotations

import asyncio
import os

from mover.serve.errors import Misbehaved
from mover.serve.fence import Fenced, fence, is_socket

# worker.connections is at most 16, and a worker may hold old ones that it fences itself.
CONNECTIONS_MOST = 64


class Connections:
    """The open connections of one worker, by the worker's number for them; owns their descriptors."""

    def __init__(self) -> None:
        self._fds: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._fds)

    def keep(self, connection: int, fds: list[int]) -> None:
        """The worker has connected; takes the one descriptor out of `fds`. Raises Misbehaved."""
        if len(fds) != 1 or not is_socket(fds[0]):
            raise Misbehaved("a connection comes with exactly one socket")
        if connection in self._fds or len(self._fds) >= CONNECTIONS_MOST:
            raise Misbehaved(f"connection {connection} is known already, or one too many")
        self._fds[connection] = fds.pop()

    def let_go(self, connection: int) -> None:
        """The worker has ended this connection, and seen its end. Raises Misbehaved."""
        fd = self._fds.pop(connection, None)
        if fd is None:
            raise Misbehaved(f"connection {connection} was never announced")
        os.close(fd)

    async def fence(self, deadline_s: float) -> list[Fenced]:
        """Fence all of them at once; none is left."""
        fds, self._fds = list(self._fds.values()), {}
        return await asyncio.gather(*(fence(fd, deadline_s) for fd in fds))

    def close(self) -> None:
        """Close them without a fence: nobody will write after this worker."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
