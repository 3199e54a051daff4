"""CloudStack's control socket: one request of JSON a connection, one line of answer."""

from __future__ import annotations

import asyncio
import logging
import socket

import msgspec

from config.log import facts
from config.roots import NotAllowed
from mover.control import audit
from mover.control.peers import Peer, Peers
from mover.control.registry import Registry, TooMany
from mover.control.requests import Refused, Register, Request, Unregister, parse
from mover.control.store import Kept
from mover.serve.listeners import BACKLOG

log = logging.getLogger(__name__)

REQUEST_BYTES = 64 * 1024
REQUEST_S = 5.0
# A client that has sent too much has so long to read why.
LINGER_S = 1.0
# The agent itself gives up after 5 s; who is more patient is told in the end.
UNREGISTER_S = 60.0


class Ok(msgspec.Struct, frozen=True):
    """The answer to whatever could be done."""

    active_transfers: int
    status: str = "ok"


class Error(msgspec.Struct, frozen=True):
    """The answer to everything else."""

    message: str
    status: str = "error"


class ControlSocket:
    """Answers on a listening socket; a transfer is a ticket of CloudStack's dialect."""

    def __init__(self, registry: Registry, peers: Peers) -> None:
        self._registry = registry
        self._peers = peers
        self._server: asyncio.Server | None = None
        self._answering: set[asyncio.Task[None]] = set()

    async def start(self, sock: socket.socket) -> None:
        """Answer from now on; what has connected before is answered, too."""
        self._server = await asyncio.start_unix_server(self._accept, sock=sock, limit=REQUEST_BYTES, backlog=BACKLOG)

    def close(self) -> None:
        """Take no more requests, and let go of those that wait."""
        if self._server is not None:
            self._server.close()
        for task in self._answering:
            task.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: asyncio's would complain of being cancelled at the end.
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = await self._answer(reader, Peer.of(writer))
            writer.write(msgspec.json.encode(answer) + b"\n")
            await writer.drain()
            writer.write_eof()
            await _drop_rest(reader)
        except OSError:
            pass  # it has left, or has heard enough
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, peer: Peer) -> Ok | Error:
        try:
            request = await _read(reader)
            if not self._peers.allows(peer):
                audit.refused(peer, "control-socket")
                raise Refused("this user may not use the control socket")
            await self._do(parse(request), audit.who(peer))
        except Refused as refused:
            log.warning("control request refused", extra=facts(why=refused.message[:200]))
            return Error(refused.message)
        return Ok(self._registry.count("cloudstack"))

    async def _do(self, request: Request, by: audit.Who) -> None:
        try:
            if isinstance(request, Register):
                await self._registry.install(_kept(request), by)
            elif isinstance(request, Unregister):
                async with asyncio.timeout(UNREGISTER_S):
                    await self._registry.remove(request.id, "cloudstack", by)
        except TimeoutError:
            raise Refused(f"requests are still in flight after {UNREGISTER_S:g} s; none is admitted any more") from None
        except (NotAllowed, TooMany) as error:
            raise Refused(str(error)) from error
        except OSError as error:
            raise Refused(f"cannot write the state directory: {error.strerror}") from error


def _kept(request: Register) -> Kept:
    """A transfer as a ticket: CloudStack's may read, write and punch holes."""
    export = request.export
    return Kept(request.id, export, request.idle_s, "cloudstack", export.key, ("read", "write"), sparse=True)


async def _drop_rest(reader: asyncio.StreamReader) -> None:
    """Read on for a moment: closing a Unix socket with bytes unread resets it, and the answer is lost."""
    try:
        async with asyncio.timeout(LINGER_S):
            while await reader.read(REQUEST_BYTES):
                pass
    except TimeoutError:
        pass


async def _read(reader: asyncio.StreamReader) -> bytes:
    """A request, which ends with a newline or with what is sent. Raises Refused, and OSError when the client left."""
    try:
        async with asyncio.timeout(REQUEST_S):
            return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as ended:
        return ended.partial
    except asyncio.LimitOverrunError:
        raise Refused(f"the request is larger than {REQUEST_BYTES} bytes") from None
    except TimeoutError:
        raise Refused(f"no whole request within {REQUEST_S:g} s") from None
