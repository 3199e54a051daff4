"""A Sanic of the pinned version in the test's loop, asyncio's and uvloop's in turn, as the front end starts it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

import pytest
import uvloop
from hypothesis import settings
from sanic import Request, Sanic

from mover.front import sanic_seam
from mover.front.sanic_connections import Connections
from mover.front.sanic_seam import Sent
from tests.harness.waiting import PATIENCE_S

settings.register_profile("front", deadline=None)
settings.load_profile("front")

PROGRESS_S = 5.0

Handler = Callable[[Request], Awaitable[Sent]]
_numbers = count(1)


@pytest.fixture(autouse=True, params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    """In the place of pytest-sanic's, which gives every test the fixture of this name and runs coroutines on it."""
    made = request.param()
    asyncio.set_event_loop(made)
    yield made
    made.close()


class Client:
    """A connection as bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[bytes, bytes]:
        """The next answer's head and body; without Content-Length the body is not read."""
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
            return head, await self.reader.readexactly(int(length.partition(b":")[2]))

    async def rest(self) -> bytes:
        """All until the server closes."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read()

    def close(self) -> None:
        self.writer.close()


class SanicClient:
    """A server with one handler for everything, and connections to it."""

    def __init__(self) -> None:
        self.app: Sanic[Any, Any] = Sanic(
            f"front-{next(_numbers)}", request_class=sanic_seam.StrictRequest, configure_logging=False
        )
        # Its rewriting of methods works once in a process.
        self.app.config.TOUCHUP = False
        sanic_seam.configure(self.app)
        sanic_seam.set_patience(self.app, PROGRESS_S, PROGRESS_S)
        self.app.config.PROGRESS_S = PROGRESS_S
        self._server: Any = None
        self._clients: list[Client] = []

    async def start(self, handler: Handler) -> None:
        """Serve; every method of every path goes to `handler`."""

        async def route(request: Request, path: str) -> Sent:
            return await handler(request)

        self.app.add_route(route, "/<path:path>", methods=["GET", "HEAD", "PUT", "POST"], stream=True, name="all")
        self._connections = Connections(self.app, print)
        await self._connections.start()
        make = partial(self._connections.make, lambda: None)
        self._server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
        self.address = self._server.sockets[0].getsockname()

    async def connect(self) -> Client:
        """One connection."""
        client = Client(*await asyncio.open_connection(*self.address))
        self._clients.append(client)
        return client

    @property
    def connections(self) -> Connections:
        """Those that are open."""
        return self._connections

    async def stop(self) -> None:
        """End everything and wait for it."""
        for client in self._clients:
            client.close()
        if self._server is not None:
            self._server.close()
            async with asyncio.timeout(PATIENCE_S):
                while self.connections:
                    for connection in self.connections:
                        connection.abort()  # type: ignore[no-untyped-call]
                    await asyncio.sleep(0)
                await asyncio.sleep(0)
        Sanic.unregister_app(self.app)


@pytest.fixture
def sanic_client(loop: asyncio.AbstractEventLoop) -> Iterator[SanicClient]:
    """pytest-sanic's own does not work with this Sanic."""
    made = SanicClient()
    yield made
    loop.run_until_complete(made.stop())
