"""TLS between the loop's plain transport and the HTTP protocol: records in and out of memory, nothing hidden.

    client ──► plain transport ──► _incoming ──► decrypted into the protocol's own buffer (a slot, for a PUT's body)
    client ◄── plain transport ◄── _outgoing ◄── encrypted from the caller's memory (a slot, for a GET's body)

What was written is encrypted when `write` returns, so a slot is free then; what the socket did not take stands in
the plain transport, whose count of it is true. uvloop's own TLS transport is as fast, but does not say what its plain
one still holds: a connection closed then loses the end of a body.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from enum import Enum, auto
from functools import cached_property
from typing import Any, cast

from config.log import facts
from mover.front.subjects import subject_of

log = logging.getLogger(__name__)

# One read from the socket, for all connections: it is decrypted before the next one.
_RECEIVED = memoryview(bytearray(256 * 1024))
# A TLS record's most.
RECORD_BYTES = 16 * 1024
# Of a body, encrypted and written at once: it fits a processor's cache, and is more than HIGH_BYTES.
PIECE_BYTES = 8 * RECORD_BYTES
# The plain transport writes more than HIGH_BYTES at once, and says so when less than LOW_BYTES are left.
HIGH_BYTES = 64 * 1024
LOW_BYTES = RECORD_BYTES
# What is written when a connection closes has so long to leave.
CLOSE_S = 5.0
# Answers to a client's key updates and the like, without anything of ours: one who does not read them is cut off.
MOST_UNASKED_BYTES = 1024 * 1024


class _State(Enum):
    """How far a connection is."""

    HANDSHAKE = auto()
    OPEN = auto()
    # We have said that nothing more comes from us; what the client still sends is dropped.
    DEAF = auto()
    CLOSING = auto()


class TlsTransport(asyncio.Transport):
    """What the HTTP protocol, made by `factory` after the handshake, has for a transport; `lost` when it is over.

    A handshake that fails is told to `turned_away`, by mover/front/counts.py's words.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        handshake_s: float,
        factory: Callable[[], asyncio.Protocol],
        lost: Callable[[], None],
        turned_away: Callable[[str], None],
    ) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._handshake_s = handshake_s
        self._factory = factory
        self._lost = lost
        self._turned_away = turned_away
        self._state = _State.HANDSHAKE
        self._protocol: asyncio.BaseProtocol | None = None
        self._reading = True
        self._full = False
        self._ended = False
        self._deadline: asyncio.TimerHandle | None = None
        self._plain: asyncio.Transport

    # -- what the plain transport's protocol does ------------------------------------------------------------

    def begin(self, plain: asyncio.Transport) -> None:
        """The connection is there: shake hands within the deadline."""
        self._plain = plain
        plain.set_write_buffer_limits(HIGH_BYTES, LOW_BYTES)
        self._deadline = self._loop.call_later(self._handshake_s, self._too_late)

    def received(self, count: int) -> None:
        """So many bytes are in `_RECEIVED`."""
        if self._state in (_State.HANDSHAKE, _State.OPEN):
            self._incoming.write(_RECEIVED[:count])
            self._advance()

    def ended(self) -> None:
        """The client sends no more, and may not have said so by TLS."""
        self._ended = True
        if self._state is _State.OPEN and not self._reading:
            return  # what is not decrypted yet comes first
        self._end()

    def gone(self, error: Exception | None) -> None:
        """The connection is over."""
        self._state = _State.CLOSING
        self._cancel_deadline()
        if self._protocol is not None:
            self._protocol.connection_lost(error)
        self._lost()

    def pause_writing(self) -> None:
        """The client does not read."""
        self._full = True
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._full = False
        if self._protocol is not None:
            self._protocol.resume_writing()

    # -- handshake and reading -------------------------------------------------------------------------------

    def _advance(self) -> None:
        try:
            if self._state is _State.HANDSHAKE:
                self._shake_hands()
            if self._state is _State.OPEN:
                self._decrypt()
                self._flush()
        except ssl.SSLError as error:
            self._fail(error)
            return
        if self._plain.get_write_buffer_size() > MOST_UNASKED_BYTES:
            self.abort()

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        self._flush()
        self._cancel_deadline()
        self._state = _State.OPEN
        self._protocol = self._factory()
        self._protocol.connection_made(self)

    def _decrypt(self) -> None:
        """Hand over what has come, as long as the protocol takes it."""
        try:
            while self._reading and self._state is _State.OPEN:
                protocol = self._protocol
                count = (
                    self._fill(protocol)
                    if isinstance(protocol, asyncio.BufferedProtocol)
                    else self._give(cast(asyncio.Protocol, protocol))
                )
                if not count:
                    self._end()
                    return
        except ssl.SSLWantReadError:
            if self._ended:
                self._end()

    def _give(self, protocol: asyncio.Protocol) -> int:
        data = self._tls.read(PIECE_BYTES)
        if data:
            protocol.data_received(data)
        return len(data)

    def _fill(self, protocol: asyncio.BufferedProtocol) -> int:
        """Decrypt into the protocol's buffer until it is full or nothing is left; 0 at the client's own end.

        Raises SSLWantReadError when there was nothing.
        """
        room = cast(memoryview, protocol.get_buffer(-1))
        filled = count = self._read_into(room)
        try:
            while count and filled < len(room):
                count = self._read_into(room[filled:])
                filled += count
        except ssl.SSLWantReadError:
            pass
        if filled:
            protocol.buffer_updated(filled)
        return filled

    def _read_into(self, room: memoryview) -> int:
        tls: Any = self._tls  # typeshed knows of no memoryview here, and of no number that comes back
        return int(tls.read(len(room), room))

    def _end(self) -> None:
        if self._state is _State.OPEN:
            protocol = cast(asyncio.Protocol, self._protocol)
            if not protocol.eof_received():
                self.close()
        else:
            self.abort()

    def _too_late(self) -> None:
        log.info("handshake failed", extra=facts(client=self._client(), why="it took too long"))
        self._turned_away("handshake_s")
        self.abort()

    def _fail(self, error: ssl.SSLError) -> None:
        """The client is told by an alert, and then the connection ends."""
        if self._state is _State.HANDSHAKE:
            log.info("handshake failed", extra=facts(client=self._client(), why=error.reason or error))
            self._turned_away("handshake")
        self._flush()
        self._close_plain()

    def _client(self) -> str:
        peer = self._plain.get_extra_info("peername")
        return str(peer[0]) if isinstance(peer, tuple) else "unknown"

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    # -- what the HTTP protocol asks for ---------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt `data` and send it; nothing of it is needed any more when this returns."""
        if self._state is not _State.OPEN:
            return
        view = memoryview(data)
        try:
            while view:
                view = view[self._tls.write(view[:PIECE_BYTES]) :]
                self._flush()
        except ssl.SSLError as error:
            self._fail(error)

    def write_some(self, data: bytes | memoryview) -> int:
        """Encrypt and send `data` until the transport is full; how much of it that was."""
        view = memoryview(data)
        while view and self._state is _State.OPEN and not self._full:
            piece = view[:PIECE_BYTES]
            self.write(piece)
            view = view[len(piece) :]
        return len(data) - len(view)

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._plain.write(self._outgoing.read())

    def write_eof(self) -> None:
        """Say that nothing more comes; what the client still sends is dropped, and comes to the protocol as nothing."""
        if self._state is _State.OPEN:
            self._say_goodbye()
            self._state = _State.DEAF

    def can_write_eof(self) -> bool:
        """TLS has an end of its own."""
        return True

    def close(self) -> None:
        """Say that nothing more comes, send what is written, and close."""
        if self._state is _State.OPEN:
            self._say_goodbye()
        self._close_plain()

    def _close_plain(self) -> None:
        self._state = _State.CLOSING
        self._cancel_deadline()
        self._plain.close()
        if self._plain.get_write_buffer_size():
            self._deadline = self._loop.call_later(CLOSE_S, self._plain.abort)

    def _say_goodbye(self) -> None:
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # the client's own end has not come, or its bytes are in the way: ours is written
        self._flush()

    def abort(self) -> None:
        """End the connection now. The client is not told that this is the end: what it has of a body is not whole."""
        self._state = _State.CLOSING
        self._cancel_deadline()
        self._plain.abort()

    def is_closing(self) -> bool:
        """Nothing can be written any more."""
        return self._state is _State.CLOSING or self._plain.is_closing()

    def is_reading(self) -> bool:
        """The protocol takes what comes."""
        return self._reading

    def pause_reading(self) -> None:
        """Hand over nothing more."""
        if self._reading and not self.is_closing():
            self._reading = False
            self._plain.pause_reading()

    def resume_reading(self) -> None:
        """Hand over what has come meanwhile, and then what comes."""
        if self._reading or self.is_closing():
            return
        self._reading = True
        self._plain.resume_reading()
        if self.buffered or self._ended:
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if self._reading and self._state is _State.OPEN:
            self._advance()

    @cached_property
    def subject(self) -> str | None:
        """The subject of the client's certificate, which was verified; None without one."""
        certificate = self._tls.getpeercert()
        return subject_of(certificate) if certificate else None

    @property
    def buffered(self) -> int:
        """Bytes that have left the socket and were not handed over: no fewer than the protocol will still get."""
        return self._incoming.pending + self._tls.pending()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Whom to hand things over to from now on."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Who gets what comes."""
        assert self._protocol is not None
        return self._protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Sanic's are for plain connections; ours stay."""

    def get_write_buffer_size(self) -> int:
        """Bytes that the socket has not taken."""
        return self._plain.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`ssl_object`, and what the plain transport knows."""
        return self._tls if name == "ssl_object" else self._plain.get_extra_info(name, default)


class TlsProtocol(asyncio.BufferedProtocol):
    """The plain transport's side of a TlsTransport."""

    def __init__(self, tls: TlsTransport) -> None:
        self._tls = tls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self._tls.begin(cast(asyncio.Transport, transport))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the transport puts what it reads."""
        return _RECEIVED

    def buffer_updated(self, nbytes: int) -> None:
        """So much has come."""
        self._tls.received(nbytes)

    def eof_received(self) -> bool:
        """The client sends no more; closing is the TLS transport's business."""
        self._tls.ended()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._tls.gone(exc)

    def pause_writing(self) -> None:
        """The transport is full."""
        self._tls.pause_writing()

    def resume_writing(self) -> None:
        """The transport has room."""
        self._tls.resume_writing()
