"""A Link: the connection to one image's server, made when it is needed, and what goes wrong on it as errors."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from mover.client.address import Address, Tls, connect_tcp, connect_unix
from mover.client.errors import (
    BrokenError,
    LocalError,
    LostWritesError,
    ProtocolError,
    RefusedError,
    UnreachableError,
    UntrustedError,
)
from mover.client.ranges import Range
from mover.client.same_host import same_server
from mover.client.wire import Connection, NotHttp, Reply, WireBroken

CONNECT_S = 15.0
# Mover itself gives a peer 60 s; a read may wait there for an NBD server that is being restarted.
SILENCE_S = 90.0
TEXT_BYTES = 64 * 1024
AUTO: Literal["auto"] = "auto"

UnixSocket = Path | Literal["auto"] | None

logger = logging.getLogger(__name__)

# OpenSSL's names of alerts, without the version that each begins with.
CERTIFICATE_ALERTS = (
    "CERTIFICATE_REQUIRED", "UNKNOWN_CA", "BAD_CERTIFICATE", "UNSUPPORTED_CERTIFICATE", "CERTIFICATE_REVOKED",
    "CERTIFICATE_EXPIRED", "CERTIFICATE_UNKNOWN", "ACCESS_DENIED",
)  # fmt: skip
CERTIFICATE_ADVICE = "name a certificate that the server trusts with --cert-file and --key-file"


class Options(msgspec.Struct, frozen=True):
    """What a server allows for an image, as OPTIONS says it; what it does not say has a default."""

    features: frozenset[str] = frozenset()
    unix_socket: str | None = None
    max_readers: int = 8
    max_writers: int = 8

    @property
    def can_write(self) -> bool:
        """The image may be written."""
        return self.max_writers > 0


class _Refusal(msgspec.Struct):
    """The body of an error."""

    error: str = ""
    lost: list[tuple[int, int]] = []


class Link:
    """One connection at a time to the server of `address`. `again()` makes another link there."""

    def __init__(self, address: Address, tls: Tls, token: str | None, unix_socket: UnixSocket) -> None:
        """Raises ValueError for a token that no header can carry."""
        self.address = address
        self._tls = tls
        self._context: ssl.SSLContext | None = None
        self._headers = {"User-Agent": "mover", "Accept-Encoding": "identity"}
        if token is not None:
            if not token.isascii() or not token.isprintable():
                raise ValueError("the token has characters that no header may have")
            self._headers["Authorization"] = f"Bearer {token}"
        self._unix_socket = unix_socket
        # The server's own Unix socket, once it is known to be the same server: None while that is not known.
        self._found: str | None = None
        self._connection: Connection | None = None
        self._aborted = False
        # It has been connected once: what fails now may pass.
        self.reached = False
        # Ranges whose GET is sent and not yet answered. Only to a server that keeps its connections.
        self._asked: deque[Range] = deque()
        self._lasts = False
        if tls.insecure and address.secure:
            logger.warning("certificates are not checked: whoever answers is believed")

    def again(self) -> Link:
        """Another link to the same server, which knows what this one has found out."""
        link = Link.__new__(Link)
        link.__dict__.update(self.__dict__)
        link._connection = None
        link._asked = deque()
        return link

    @property
    def by_unix_socket(self) -> bool:
        """The connection, if there is one, is through a Unix socket."""
        return self._connection is not None and self._connection.sock.family == socket.AF_UNIX

    def close(self) -> None:
        """End the connection; the next request makes a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection.release()
            self._connection = None
        self._asked.clear()

    def abort(self) -> None:
        """From another thread: what is under way ends with BrokenError, and nothing new begins."""
        self._aborted = True
        if (connection := self._connection) is not None:
            connection.close()

    # -- requests --------------------------------------------------------------------------------------------

    def connection(self) -> Connection:
        """The connection, made if there is none. Raises WireBroken, OSError, LocalError."""
        if self._aborted:
            raise WireBroken("the job was given up")
        if self._asked:
            self.close()  # what is to come is not the answer to what comes next
        if self._connection is None:
            sock = self._connect()
            sock.settimeout(SILENCE_S)
            self.reached = True
            self._connection = Connection(sock, self.address.netloc, self._headers)
        return self._connection

    def get(self, offset: int, length: int, ahead: Sequence[Range] = ()) -> Reply:
        """The answer to a GET of a range; those of `ahead`, which come next, are asked for before it is read."""
        if self._asked and self._asked[0] == (offset, length) and self._connection is not None:
            connection = self._connection
        else:
            connection = self.connection()
            self._ask(connection, offset, length)
        if self._lasts:
            for one in ahead[len(self._asked) - 1 :]:
                self._ask(connection, *one)
        self._asked.popleft()
        return connection.reply()

    def _ask(self, connection: Connection, offset: int, length: int) -> None:
        connection.send("GET", self.address.target, {"Range": f"bytes={offset}-{offset + length - 1}"})
        self._asked.append((offset, length))

    def request(
        self, operation: str, method: str, target: str, body: bytes | None = None, offset: int = 0, length: int = 0,
        *, endless: bool = False,
    ) -> bytes:  # fmt: skip
        """One request with small bodies, within `errors`; the answer's. `endless`: it may take any time."""
        connection = self.connection()
        headers = {"Content-Type": "application/json"} if body is not None else {}
        # Nothing comes while the server hashes; that it is gone is told by the kernel's own probes.
        connection.sock.settimeout(None if endless else SILENCE_S)
        connection.send(method, target, headers, [body] if body is not None else [])
        reply = connection.reply()
        connection.sock.settimeout(SILENCE_S)
        if reply.status not in (200, 204):
            raise self.refusal(reply, operation, offset, length)
        text = reply.text(TEXT_BYTES)
        self.finished(reply)
        return text

    def finished(self, reply: Reply) -> None:
        """The answer has been read as far as it is wanted: the connection is kept if another request may follow."""
        self._lasts = not reply.ends_connection
        if reply.ends_connection or not reply.ended:
            self.close()

    def refusal(self, reply: Reply, operation: str, offset: int, length: int) -> RefusedError:
        """What an answer that is an error says."""
        text = reply.text(TEXT_BYTES)
        self.finished(reply)
        try:
            refusal = msgspec.json.decode(text, type=_Refusal)
        except msgspec.DecodeError:
            refusal = _Refusal(error=text[:200].decode("utf-8", "replace"))
        reason = " ".join((refusal.error or reply.reason).split())
        if operation == "flush" and refusal.lost:
            return LostWritesError(self.address.url, reply.status, reason, refusal.lost)
        wait = reply.headers.get("retry-after", "")
        seconds = float(wait) if wait.isdecimal() else None
        return RefusedError(self.address.url, operation, offset, length, reply.status, reason, seconds)

    @contextlib.contextmanager
    def errors(self, operation: str, offset: int = 0, length: int = 0) -> Iterator[None]:
        """What goes wrong within is raised as ClientError; the connection is given up unless it was an answer."""
        url = self.address.url
        try:
            yield
        except RefusedError:
            raise
        except BaseException as error:
            self.close()
            if _refuses_certificate(error.__cause__):
                why = f"the server does not let this client in: {error}"
                raise UntrustedError(url, operation, offset, length, why, CERTIFICATE_ADVICE) from error
            if isinstance(error, WireBroken):
                advice = "see whether the service still runs; --resume goes on from here"
                raise BrokenError(url, operation, offset, length, str(error), advice) from error
            if isinstance(error, NotHttp):
                raise ProtocolError(url, operation, offset, length, str(error)) from error
            if isinstance(error, OSError):
                kind = UntrustedError if _is_for_good(error) else UnreachableError
                why = f"cannot connect: {_reason(error)}"
                raise kind(url, operation, offset, length, why, _connect_advice(error)) from error
            raise

    # -- connecting ------------------------------------------------------------------------------------------

    def _connect(self) -> socket.socket:
        if isinstance(self._unix_socket, Path):
            return connect_unix(str(self._unix_socket), CONNECT_S)
        if self._found is not None:
            try:
                return connect_unix(self._found, CONNECT_S)
            except OSError:
                self._found = None  # the service may have come back without it
        tcp = connect_tcp(self.address, CONNECT_S, self._tls_context())
        if self._unix_socket is None:
            return tcp
        try:
            unix = self._optimized(tcp)
        except BaseException:
            tcp.close()
            raise
        if unix is None:
            return tcp
        tcp.close()
        return unix

    def _tls_context(self) -> ssl.SSLContext | None:
        if self.address.secure and self._context is None:
            try:
                self._context = self._tls.context()
            except OSError as error:
                files = self._tls.certificate_file or self._tls.ca_file or "system authorities"
                raise LocalError.from_os(files, "TLS with", error, "check the certificate, key and CA files") from error
        return self._context

    def _optimized(self, tcp: socket.socket) -> socket.socket | None:
        """A connection to the Unix socket that the server names, if it is the same server on this host."""
        tcp.settimeout(SILENCE_S)
        if tcp.getpeername()[0] != tcp.getsockname()[0]:
            self._unix_socket = None
            return None
        reply = self._options_of(tcp)
        if reply is None or not reply.unix_socket:
            return None
        try:
            unix = connect_unix(reply.unix_socket, CONNECT_S)
        except OSError:
            return None
        if same_server(tcp, unix):
            self._found = reply.unix_socket
            return unix
        unix.close()
        self._unix_socket = None
        return None

    def _options_of(self, tcp: socket.socket) -> Options | None:
        """OPTIONS on a new connection. What is wrong with the image is told by the request that comes next."""
        connection = Connection(tcp, self.address.netloc, self._headers)
        connection.send("OPTIONS", self.address.target)
        reply = connection.reply()
        text = reply.text(TEXT_BYTES)
        if reply.ends_connection:
            raise WireBroken("the server ended the connection after OPTIONS")
        try:
            return msgspec.json.decode(text, type=Options) if reply.status == 200 else None
        except msgspec.DecodeError:
            return None


def _is_for_good(error: OSError) -> bool:
    """Trying again would be met with the same."""
    if isinstance(error, socket.gaierror):
        return error.errno != socket.EAI_AGAIN
    return isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError)


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_S:g} s"
    return error.strerror or str(error)


def _refuses_certificate(error: BaseException | None) -> bool:
    """The server has ended TLS because of the client's certificate; in TLS 1.3 with what follows the handshake."""
    reason = (isinstance(error, ssl.SSLError) and error.reason) or ""
    return "_ALERT_" in reason and reason.endswith(CERTIFICATE_ALERTS)


def _connect_advice(error: OSError) -> str:
    if _refuses_certificate(error):
        return CERTIFICATE_ADVICE
    if isinstance(error, socket.gaierror):
        return "check the host's name"
    if isinstance(error, ssl.SSLError):
        return "name its authority with --ca-file, and check the host's name"
    return "check that the service runs there"
