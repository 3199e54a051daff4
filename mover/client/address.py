"""Where an image is: its URL taken apart, TLS settings, and the connected socket."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}
# A peer that is gone without a word is noticed after about 40 s, while a checksum of an hour is waited for.
KEEP_ALIVE_IDLE_S = 20
KEEP_ALIVE_EVERY_S = 5
KEEP_ALIVE_TRIES = 4


@dataclass(frozen=True)
class Tls:
    """How a server is known, and how it knows the client. `insecure` believes any server: for trying things out.

    `ca_file` replaces the system's authorities; `key_file` may be left out where `certificate_file` has the key.
    """

    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    insecure: bool = False

    def context(self) -> ssl.SSLContext:
        """A context with these settings. Raises OSError for files that cannot be used (ssl.SSLError is one)."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate_file is not None:
            context.load_cert_chain(self.certificate_file, self.key_file)
        return context


@dataclass(frozen=True)
class Address:
    """An image's URL, taken apart. `target` is what stands in a request, percent-encoded as it was given."""

    url: str
    host: str
    port: int
    target: str
    secure: bool
    netloc: str = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> Address:
        """Raises ValueError, with the reason, for what is no URL of an image."""
        parts = urlsplit(url)
        if parts.scheme not in DEFAULT_PORTS:
            raise ValueError(f"{url!r} begins with neither http:// nor https://")
        if not parts.hostname:
            raise ValueError(f"{url!r} has no host")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("user, query and fragment have no meaning in the URL of an image")
        if not parts.path.strip("/") or not (parts.path + parts.netloc).isascii() or set(parts.path) & set(" \r\n\t"):
            raise ValueError(f"{url!r} has no path, or one that is not percent-encoded")
        port = parts.port or DEFAULT_PORTS[parts.scheme]
        return cls(url, parts.hostname, port, parts.path, parts.scheme == "https", parts.netloc)


def connect_tcp(address: Address, timeout_s: float, context: ssl.SSLContext | None) -> socket.socket:
    """A connected socket, through TLS if there is a context. Raises OSError."""
    sock = socket.create_connection((address.host, address.port), timeout_s)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE_IDLE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEP_ALIVE_EVERY_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEP_ALIVE_TRIES)
        return context.wrap_socket(sock, server_hostname=address.host) if context is not None else sock
    except BaseException:
        sock.close()
        raise


def connect_unix(path: str, timeout_s: float) -> socket.socket:
    """A socket connected to the service's Unix socket. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(timeout_s)
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock
