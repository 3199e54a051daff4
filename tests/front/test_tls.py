"""The TLS transport by itself, on both loops: what the HTTP protocol sees, and what a client may not do to it."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from config.settings import TlsSettings
from mover.front.tls import MOST_UNASKED_BYTES, TlsProtocol, TlsTransport
from mover.serve.certificates import Certificates, make_context
from tests.harness.certificates import Authority
from tests.harness.patterns import difference
from tests.harness.waiting import PATIENCE_S

BODY = bytes(range(256)) * 4096 * 8  # 8 MiB


class Protocol(asyncio.Protocol):
    """Remembers what happens to it; `on_made` begins what the test wants."""

    def __init__(self, on_made: Callable[[TlsTransport], None]) -> None:
        self.received = bytearray()
        self.lost = asyncio.Event()
        self.ended = asyncio.Event()
        self.may_write = asyncio.Event()
        self.may_write.set()
        self._on_made = on_made
        self.transport: TlsTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, TlsTransport)
        self.transport = transport
        self._on_made(transport)

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> bool:
        self.ended.set()
        return False

    def pause_writing(self) -> None:
        self.may_write.clear()

    def resume_writing(self) -> None:
        self.may_write.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.may_write.set()
        self.lost.set()


class Server:
    """Accepts TLS connections for a protocol."""

    def __init__(self, room: Path) -> None:
        self.authority = Authority(room)
        pair = self.authority.issue("server")
        settings = TlsSettings(True, str(pair.certificate), str(pair.key))
        certificates = Certificates(settings)
        self.context = make_context(certificates.fds, settings)
        certificates.close()
        self.protocols: list[Protocol] = []
        self.gone = 0

    async def __call__(
        self, on_made: Callable[[TlsTransport], None], client: Callable[[ssl.SSLSocket], None]
    ) -> Protocol:
        """Serve one client, which is a thread, to its end; what its protocol saw."""

        def make() -> Protocol:
            self.protocols.append(Protocol(on_made))
            return self.protocols[-1]

        def lost() -> None:
            self.gone += 1

        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: TlsProtocol(TlsTransport(self.context, PATIENCE_S, make, lost, print)), "127.0.0.1", 0
        )
        port = server.sockets[0].getsockname()[1]

        def talk() -> None:
            with self.connect(port) as sock:
                client(sock)

        async with asyncio.timeout(2 * PATIENCE_S):
            await loop.run_in_executor(None, talk)
            await self.protocols[-1].lost.wait()
        server.close()
        await asyncio.sleep(0)
        assert self.gone == 1
        return self.protocols[-1]

    def connect(self, port: int) -> ssl.SSLSocket:
        """A client that takes a stream which breaks off for an error; uvloop's own loses bytes before an end."""
        plain = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        context = self.authority.client_context()
        return context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False)


def read_to_end(sock: ssl.SSLSocket) -> bytes:
    """All that comes until the end of TLS."""
    return b"".join(iter(lambda: sock.recv(65536), b""))


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


async def test_what_is_written_may_be_overwritten_at_once(server: Server) -> None:
    """The slot is free when `write_some` returns, whatever the client has read; a full transport takes nothing."""
    sent: list[int] = []
    written = threading.Event()

    def write(transport: TlsTransport) -> None:
        buffer = bytearray(BODY)
        sent.append(transport.write_some(memoryview(buffer)))
        buffer[:] = bytes(len(buffer))
        assert transport.write_some(b"x") == 0
        transport.close()
        written.set()

    def client(sock: ssl.SSLSocket) -> None:
        assert written.wait(PATIENCE_S)
        differs = difference(read_to_end(sock), BODY[: sent[0]])
        assert differs is None

    await server(write, client)
    assert 0 < sent[0] < len(BODY)


async def test_reading_that_is_paused_hands_over_nothing(server: Server) -> None:
    """Neither what has come nor what comes, until it goes on; then all of it, and the end."""
    loop, paused = asyncio.get_running_loop(), threading.Event()

    def pause(transport: TlsTransport) -> None:
        transport.pause_reading()
        paused.set()

    def client(sock: ssl.SSLSocket) -> None:
        sock.sendall(BODY[:100_000])
        assert paused.wait(PATIENCE_S)
        assert server.protocols[0].received == b""
        loop.call_soon_threadsafe(server.protocols[0].transport.resume_reading)
        sock.sendall(BODY[100_000:600_000])
        sock.unwrap()

    protocol = await server(pause, client)
    differs = difference(protocol.received, BODY[:600_000])
    assert differs is None
    assert protocol.ended.is_set()


async def test_an_abort_is_no_end_of_tls(server: Server) -> None:
    """A client that was cut off is not told that this is all."""

    def write(transport: TlsTransport) -> None:
        transport.write(b"hello")
        asyncio.get_running_loop().call_later(0.05, transport.abort)

    def client(sock: ssl.SSLSocket) -> None:
        assert sock.recv(5) == b"hello"
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            sock.recv(1)

    await server(write, client)


async def test_goodbye_comes_before_the_rest_is_dropped(server: Server) -> None:
    """After `write_eof` the client reads the end, and what it still sends goes nowhere."""

    def say(transport: TlsTransport) -> None:
        transport.write(b"answer")
        assert transport.can_write_eof()
        transport.write_eof()

    def client(sock: ssl.SSLSocket) -> None:
        assert read_to_end(sock) == b"answer"
        sock.sendall(BODY[:100_000])

    protocol = await server(say, client)
    assert protocol.received == b""


async def test_a_client_that_has_answers_made_and_reads_none_is_cut_off(server: Server) -> None:
    """Whatever of TLS itself is asked for: what stands unread has a bound."""

    def flood(transport: TlsTransport) -> None:
        transport.write(bytes(16 * MOST_UNASKED_BYTES))

    def client(sock: ssl.SSLSocket) -> None:
        with pytest.raises(OSError):
            sock.sendall(b"more" * 64 * MOST_UNASKED_BYTES)

    await server(flood, client)
