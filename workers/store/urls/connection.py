"""One HTTP connection to a server that a client's URL has named: to an address that was judged, within deadlines.

    resolve ──every address──► config/url_rules.py ──► connect to one of just these ──► TLS, by the URL's host name

The standard library's http.client reads and writes the messages: it can read a body straight into a slot. Neither the
environment's proxies nor a second resolution comes between.
"""

from __future__ import annotations

import errno
import http.client
import io
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from config.url_rules import Target, UrlRules, check_addresses

CONNECT_S, HEAD_S, BYTES_S = 10.0, 15.0, 30.0
# Of a name with several addresses so many are tried, within CONNECT_S together.
ADDRESSES_MOST = 3
# A body that comes slower than this, counted over BYTES_S, does not come.
LEAST_BYTES_S = 1024
AGENT = "mover"

Resolve = Callable[[str, int], Sequence[str]]
"""All addresses of a host. Raises OSError."""


def resolve(host: str, port: int) -> Sequence[str]:
    """What the system says."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise OSError(errno.EHOSTUNREACH, "its name is not known") from error
    # A scope is of link-local addresses alone, which are refused with it or without.
    return list(dict.fromkeys(str(address[0]).partition("%")[0] for *_, address in found))


class _Wire(io.RawIOBase):
    """What http.client reads from: each read has a deadline of its own, and an answer's head has one for all of it."""

    def __init__(self, owner: _Socket) -> None:
        self._owner = owner
        self._sock = owner.sock
        self._began_s = time.monotonic()
        self._came_bytes = 0
        self._head = True

    def close(self) -> None:
        """The answer is over: so is the connection, where there is no next one."""
        super().close()
        self._owner.answered()

    def begin_body(self) -> None:
        """The head is in."""
        self._head, self._began_s, self._came_bytes = False, time.monotonic(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Raises TimeoutError."""
        waited_s = time.monotonic() - self._began_s
        if self._head:
            self._sock.settimeout(_left(HEAD_S - waited_s))
        else:
            if waited_s > BYTES_S:
                if self._came_bytes < LEAST_BYTES_S * waited_s:
                    raise TimeoutError
                self.begin_body()
            self._sock.settimeout(BYTES_S)
        count = self._sock.recv_into(buffer)
        self._came_bytes += count
        return count


def _left(seconds: float) -> float:
    if seconds <= 0:
        raise TimeoutError
    return seconds


class _Socket:
    """As much of a socket as http.client uses; the descriptor closes with the last of connection and answer."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.wire: _Wire | None = None
        self._closes = False

    def sendall(self, data: bytes) -> None:
        self.sock.settimeout(HEAD_S)
        self.sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"
        self.wire = _Wire(self)
        return io.BufferedReader(self.wire)

    def close(self) -> None:
        self._closes = True
        self.answered()

    def answered(self) -> None:
        """Nobody reads an answer any more, perhaps."""
        if self._closes and (self.wire is None or self.wire.closed):
            self.sock.close()


class UrlConnection(http.client.HTTPConnection):
    """A connection to the target's origin, opened by its first request; `get` answers with a body to be read."""

    def __init__(self, target: Target, rules: UrlRules, resolver: Resolve = resolve) -> None:
        super().__init__(target.host, target.port)
        self.origin = target.origin
        self._target = target
        self._rules = rules
        self._resolver = resolver
        self._wrapped: _Socket | None = None

    def connect(self) -> None:
        """As http.client asks for it. Raises UrlRefused, OSError."""
        target = self._target
        addresses = self._resolver(target.host, target.port)
        check_addresses(target.host, addresses, self._rules)
        sock = _connected(addresses, target.port)
        try:
            if target.scheme == "https":
                sock = _secured(sock, target.host, self._rules.ca_file)
        except BaseException:
            sock.close()
            raise
        self._wrapped = _Socket(sock)
        self.sock = self._wrapped

    def get(self, target: Target, first: int | None, last: int | None) -> http.client.HTTPResponse:
        """Ask for bytes `first` to `last`, both included, or for all. Raises OSError, UrlRefused, HTTPException."""
        self.putrequest("GET", target.path, skip_host=True, skip_accept_encoding=True)
        self.putheader("Host", target.authority)
        self.putheader("User-Agent", AGENT)
        self.putheader("Accept", "*/*")
        # What a server packs on the way has other bytes, and another length, than the image.
        self.putheader("Accept-Encoding", "identity")
        if first is not None:
            self.putheader("Range", f"bytes={first}-{last}")
        self.endheaders()
        response = self.getresponse()
        if self._wrapped is not None and self._wrapped.wire is not None:
            self._wrapped.wire.begin_body()
        return response

    def abort(self) -> None:
        """End whatever a thread waits for on it; that thread closes it."""
        if self._wrapped is not None:
            shut(self._wrapped.sock)


def _connected(addresses: Sequence[str], port: int) -> socket.socket:
    """A connection to the first address that takes one."""
    error = OSError(errno.EHOSTUNREACH, "its name has no address")
    for address in addresses[:ADDRESSES_MOST]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(CONNECT_S / min(len(addresses), ADDRESSES_MOST))
            sock.connect((address, port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError as why:
            sock.close()
            error = why
    raise error


def _secured(sock: socket.socket, host: str, ca_file: str) -> socket.socket:
    """TLS on it. A server that sends its part of the handshake a byte at a time is not waited for."""
    timer = threading.Timer(HEAD_S, shut, [sock])
    timer.daemon = True
    timer.start()
    try:
        return _context(ca_file).wrap_socket(sock, server_hostname=host)
    finally:
        timer.cancel()


def shut(sock: socket.socket) -> None:
    """End whatever a thread waits for on it."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it is not connected any more


@lru_cache(maxsize=4)
def _context(ca_file: str) -> ssl.SSLContext:
    """TLS of a client that verifies the server, and its name. Raises OSError."""
    context = ssl.create_default_context(cafile=ca_file or None)
    # Python takes a stream that breaks off for one that has ended.
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    return context


def reason(error: BaseException) -> str:
    """What went wrong, in a few words that show nothing of the URL."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not accepted: {error.verify_message}"
        case ssl.SSLError():
            return "TLS fails"
        case TimeoutError():
            return "it does not answer in time"
        case OSError() if error.errno:
            return (error.strerror if error.errno == errno.EHOSTUNREACH else None) or os.strerror(error.errno).lower()
        case http.client.HTTPException():
            return "its answer is no HTTP that can be read"
    return "the connection breaks off"
