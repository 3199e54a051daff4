"""The fence on real sockets, without a supervisor."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from mover.serve.fence import Fenced, fence


@pytest.fixture
def tcp() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection over TCP: our end, the server's end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with ours, theirs:
        yield ours, theirs


async def _serve_and_fence(ours: socket.socket, theirs: socket.socket) -> tuple[Fenced, int]:
    """Fence while the server answers until it reads the end; how it went, and the bytes that the server read."""
    loop = asyncio.get_running_loop()
    theirs.setblocking(False)
    fenced = loop.create_task(fence(os.dup(ours.fileno()), 10.0))
    read = 0
    while got := await loop.sock_recv(theirs, 65536):
        read += len(got)
        await loop.sock_sendall(theirs, bytes(100_000))
    assert not fenced.done()
    theirs.close()
    return await fenced, read


def test_a_fence_ends_with_the_server() -> None:
    """On a Unix socket: the server gets everything and the end, its answers are discarded, its close is the end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(bytes(50_000))
        assert asyncio.run(_serve_and_fence(ours, theirs)) == (Fenced(ended=True, server_lost=False), 50_000)


def test_a_fence_over_tcp_ends_with_the_server(tcp: tuple[socket.socket, socket.socket]) -> None:
    """The same over TCP: a server that ends the connection when asked was not lost."""
    tcp[0].sendall(bytes(50_000))
    assert asyncio.run(_serve_and_fence(*tcp)) == (Fenced(ended=True, server_lost=False), 50_000)


def test_a_server_that_does_not_end_leaves_a_doubt() -> None:
    """After the deadline it is over, and nobody knows."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert asyncio.run(fence(os.dup(ours.fileno()), 0.05)) == Fenced(ended=False, server_lost=False)


def test_a_server_that_talks_without_end_meets_the_deadline() -> None:
    """Bytes that always wait to be read do not keep the deadline from passing."""

    async def talk(theirs: socket.socket) -> None:
        while True:
            await asyncio.get_running_loop().sock_sendall(theirs, bytes(1 << 20))

    async def run() -> Fenced:
        talking = asyncio.create_task(talk(theirs))
        fenced = await fence(os.dup(ours.fileno()), 0.05)
        talking.cancel()
        return fenced

    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        assert not asyncio.run(run()).ended


def test_a_remote_server_that_had_closed_before_is_lost(tcp: tuple[socket.socket, socket.socket]) -> None:
    """Nobody asked it to: it is gone, and perhaps what it had not flushed."""
    ours, theirs = tcp
    theirs.close()
    assert asyncio.run(fence(os.dup(ours.fileno()), 10.0)) == Fenced(ended=True, server_lost=True)


def test_a_remote_server_that_resets_is_lost(tcp: tuple[socket.socket, socket.socket]) -> None:
    """A reset is an end, but not the one that was asked for."""
    ours, theirs = tcp
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    assert asyncio.run(fence(os.dup(ours.fileno()), 10.0)) == Fenced(ended=True, server_lost=True)


def test_a_fence_keeps_no_descriptor() -> None:
    """The descriptor is the fence's, and closed when it is over."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fd = os.dup(ours.fileno())
        asyncio.run(fence(fd, 0.01))
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
