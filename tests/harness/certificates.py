"""Certificates for tests, made by openssl: authorities, servers and clients."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Elliptic curves: a key takes milliseconds.
_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
_AUTHORITY = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
_LEAF = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]


@dataclass(frozen=True)
class Pair:
    """A certificate's file and its key's."""

    certificate: Path
    key: Path


class Authority:
    """Who signs certificates; its own is `certificate`."""

    def __init__(self, room: Path, name: str = "authority") -> None:
        self._room = room
        self._own = self._make(name, f"/CN={name}", _AUTHORITY)

    @property
    def certificate(self) -> Path:
        """What others must know to trust it."""
        return self._own.certificate

    def issue(self, name: str, subject: str = "/CN=localhost") -> Pair:
        """A certificate of this subject, for a server or a client, in files called `name`."""
        by = ["-CA", str(self._own.certificate), "-CAkey", str(self._own.key)]
        return self._make(name, subject, [*_LEAF, *by])

    def _make(self, name: str, subject: str, options: list[str]) -> Pair:
        pair = Pair(self._room / f"{name}.crt", self._room / f"{name}.key")
        files = ["-out", str(pair.certificate), "-keyout", str(pair.key)]
        command = ["openssl", "req", "-x509", *_KEY, *files, "-days", "2", "-utf8", "-subj", subject, *options]
        subprocess.run(command, check=True, capture_output=True)
        return pair

    def client_context(self, own: Pair | None = None) -> ssl.SSLContext:
        """The TLS of a client that trusts this authority, and shows a certificate of its own if it has one."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        # Python takes a stream that breaks off for one that has ended.
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        if own is not None:
            context.load_cert_chain(own.certificate, own.key)
        return context


def tables(pair: Pair, **more: str | float) -> dict[str, bool | float | str]:
    """The settings' table `[tls]` of a server with this certificate."""
    return {"enabled": True, "cert_file": str(pair.certificate), "key_file": str(pair.key), **more}
