"""A small HTTP server on a Unix socket, for the supervisor: h11 reads and writes, asyncio waits.

Nobody keeps the supervisor from its work: heads, bodies, connections and times have limits, and each client is a task.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

import h11
import msgspec

from config.log import facts
from mover.control import audit
from mover.control.peers import Peer, Peers
from mover.serve.listeners import BACKLOG

log = logging.getLogger(__name__)

HEAD_BYTES = 16 * 1024
BODY_BYTES = 64 * 1024
# A request must be here so long after its first byte, and the first one's first byte so long after the connection.
REQUEST_S = 5.0
# A connection that has had a request may be without one for so long, unless another client needs its place.
IDLE_S = 60.0
# What a refused client still sends is read for so long, so that it can read its answer.
LINGER_S = 1.0
CONNECTIONS_MOST = 128
READ_BYTES = 64 * 1024


@dataclass(frozen=True)
class Request:
    """A whole request: the path is as it came, still encoded."""

    method: str
    path: str
    body: bytes
    peer: Peer


@dataclass(frozen=True)
class Answer:
    """What is answered; without content there is no body."""

    status: int
    content: object = None
    headers: tuple[tuple[str, str], ...] = ()


def refusal(status: int, message: str) -> Answer:
    """An error, as all of Mover's are."""
    return Answer(status, {"error": message})


class Refused(Exception):
    """The request is no good, and the connection ends with this answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.answer = refusal(status, message)


Handler = Callable[[Request], Awaitable[Answer]]


class HttpSocket:
    """Answers on a listening socket."""

    def __init__(self, handler: Handler, peers: Peers) -> None:
        self._handler = handler
        self._peers = peers
        self._server: asyncio.Server | None = None
        self._clients: dict[asyncio.Task[None], _Client] = {}

    async def start(self, sock: socket.socket) -> None:
        """Answer from now on; what has connected before is answered, too."""
        self._server = await asyncio.start_unix_server(self._accept, sock=sock, backlog=BACKLOG)

    def close(self) -> None:
        """Take no more requests, and let go of those that wait."""
        if self._server is not None:
            self._server.close()
        for task in self._clients:
            task.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = _Client(reader, writer)
        # A task of our own: asyncio's would complain of being cancelled at the end.
        task = asyncio.get_running_loop().create_task(self._serve(client, self._has_room()))
        self._clients[task] = client
        task.add_done_callback(self._clients.pop)

    def _has_room(self) -> bool:
        """Whether there is a place for one more client; whoever only keeps a connection gives it up."""
        if len(self._clients) < CONNECTIONS_MOST:
            return True
        for task, client in self._clients.items():
            if client.idle:
                client.idle = False
                task.cancel()
                return True
        return False

    async def _serve(self, client: _Client, has_room: bool) -> None:
        try:
            if not self._peers.allows(client.peer):
                audit.refused(client.peer, "ticket-socket")
                await client.refuse(Refused(403, "this user may not use the ticket service"))
            elif not has_room:
                await client.refuse(Refused(503, f"{CONNECTIONS_MOST} connections are open already"))
            else:
                while (request := await client.request()) is not None:
                    await client.answer(await self._answer(request))
        except Refused as refused:
            await client.refuse(refused)
        except OSError:
            pass  # it has left
        finally:
            client.close()

    async def _answer(self, request: Request) -> Answer:
        try:
            return await self._handler(request)
        except Exception as error:
            log.exception("request failed", exc_info=error)
            return refusal(500, "internal error; the log has it")


class _Client:
    """One connection; `idle` while it has had a request and has none now."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peer = Peer.of(writer)
        self.idle = False
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)

    async def request(self) -> Request | None:
        """The next request; None when there is none. Raises Refused, and OSError when the client has left."""
        first = self._http.our_state is h11.IDLE
        if not first:
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return None
            self._http.start_next_cycle()
        try:
            if not await self._begins(REQUEST_S if first else IDLE_S):
                return None
            async with asyncio.timeout(REQUEST_S):
                return await self._read()
        except TimeoutError:
            raise Refused(408, f"no whole request within {REQUEST_S:g} s") from None
        except h11.RemoteProtocolError as error:
            raise Refused(error.error_status_hint, str(error)) from error

    async def _begins(self, patience_s: float) -> bool:
        """Wait for the first bytes of a request; False when there are none in time, or ever."""
        if self._http.trailing_data[0]:
            return True
        self.idle = patience_s > REQUEST_S
        try:
            async with asyncio.timeout(patience_s):
                data = await self._reader.read(READ_BYTES)
        except TimeoutError:
            return False
        self.idle = False
        if data:
            self._http.receive_data(data)
        return bool(data)

    async def _read(self) -> Request | None:
        head = await self._event()
        if not isinstance(head, h11.Request):
            return None  # it has left
        body = bytearray()
        while not isinstance(event := await self._event(), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                return None
            body += event.data
            if len(body) > BODY_BYTES:
                raise Refused(413, f"the body is larger than {BODY_BYTES} bytes")
        return Request(head.method.decode("latin-1"), head.target.decode("latin-1"), bytes(body), self.peer)

    async def _event(self) -> object:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._http.they_are_waiting_for_100_continue:
                self._write(h11.InformationalResponse(status_code=100, headers=[]))
            self._http.receive_data(await self._reader.read(READ_BYTES))

    async def answer(self, answer: Answer, connection: str = "keep-alive") -> None:
        """Answer a request; the connection goes on if both sides can."""
        body = b"" if answer.content is None else msgspec.json.encode(answer.content) + b"\n"
        headers = [*answer.headers, ("Connection", connection)]
        if answer.status != HTTPStatus.NO_CONTENT:
            headers.append(("Content-Length", str(len(body))))
        if body:
            headers.append(("Content-Type", "application/json"))
        reason = HTTPStatus(answer.status).phrase
        self._write(h11.Response(status_code=answer.status, headers=headers, reason=reason))
        self._write(h11.Data(body))
        self._write(h11.EndOfMessage())
        async with asyncio.timeout(REQUEST_S):
            await self._writer.drain()

    def _write(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            self._writer.write(data)

    async def refuse(self, refused: Refused) -> None:
        """Answer what is no request, and read on for a while what else is sent."""
        log.warning("ticket request refused", extra=facts(pid=self.peer.pid, uid=self.peer.uid, why=str(refused)[:200]))
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        try:
            await self.answer(refused.answer, "close")
            self._writer.write_eof()
            async with asyncio.timeout(LINGER_S):
                while await self._reader.read(READ_BYTES):
                    pass
        except (OSError, TimeoutError):
            pass  # it has heard enough

    def close(self) -> None:
        """Let go of it; what it does not read any more is lost."""
        self._writer.close()
