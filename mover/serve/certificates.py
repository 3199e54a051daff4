"""What TLS is spoken with: the certificate, its key and the clients' authorities, and how they reach front ends.

The supervisor alone reads the files, since a key may be readable by root only, and tries them. Front ends get what
stands in them as memfds that nobody can change any more.
"""

from __future__ import annotations

import fcntl
import os
import ssl
from collections.abc import Sequence

from config.settings import TlsSettings

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
# Chains and bundles of authorities have a few hundred KiB at most.
MOST_BYTES = 4 * 1024 * 1024


class CertificateError(Exception):
    """A certificate, key or authority that cannot be used: `what` file, and `why`. The text is one line."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")
        self.what = what
        self.why = why


class Certificates:
    """What the files held when they were read: a memfd of certificate and key, and one of authorities if asked for."""

    def __init__(self, settings: TlsSettings) -> None:
        """Read and try them. Raises CertificateError."""
        own = _read(settings.cert_file) + b"\n" + _read(settings.key_file)
        self.fds = [_sealed(own)]
        try:
            if settings.client_certificates != "none":
                self.fds.append(_sealed(_read(settings.client_ca_file)))
            make_context(self.fds, settings)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Forget them."""
        while self.fds:
            os.close(self.fds.pop())


def make_context(fds: Sequence[int], settings: TlsSettings) -> ssl.SSLContext:
    """The context of a server with the certificates behind `fds`. Raises CertificateError.

    Connections keep the context that they began with; a new one is for those that come later.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client could have us make keys all day; and then a write would have to wait for a read.
    context.options |= ssl.OP_NO_RENEGOTIATION
    # No resumption: a resumed session keeps a client's certificate that the present authorities may not know, and each
    # front end would have keys of its own for it.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    try:
        # A passphrase would be asked for at the terminal.
        context.load_cert_chain(_path(fds[0]), password=_no_passphrase)
    except (ssl.SSLError, _Encrypted) as error:
        raise CertificateError(f"{settings.cert_file} and {settings.key_file}", _why(error)) from error
    if settings.client_certificates != "none":
        _ask_clients(context, fds[1], settings)
    return context


def _ask_clients(context: ssl.SSLContext, fd: int, settings: TlsSettings) -> None:
    try:
        context.load_verify_locations(_path(fd))
    except ssl.SSLError as error:
        raise CertificateError(settings.client_ca_file, _why(error)) from error
    required = settings.client_certificates == "required"
    context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL


class _Encrypted(Exception):
    """The key has a passphrase."""

    reason = "the key has a passphrase, which nobody could give when Mover starts"


def _no_passphrase() -> str:
    raise _Encrypted


def _why(error: ssl.SSLError | _Encrypted) -> str:
    if "PEM lib" in str(error):
        return "there is no PEM of what is needed, a certificate and its private key"
    known = {"KEY_VALUES_MISMATCH": "the key is not the certificate's"}
    reason = error.reason or str(error)
    return known.get(reason, reason.replace("_", " ").lower() if reason.isupper() else reason)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except PermissionError as error:
        # Root may have been given up since the start, which has read it.
        what_to_do = "let its group read it (chgrp, chmod 640), or restart Mover"
        raise CertificateError(path, f"may not be read by user {os.geteuid()}: {what_to_do}") from error
    except OSError as error:
        raise CertificateError(path, f"cannot be read ({(error.strerror or str(error)).lower()})") from error
    if len(content) > MOST_BYTES:
        raise CertificateError(path, f"has more than {MOST_BYTES} bytes")
    return content


def _sealed(content: bytes) -> int:
    fd = os.memfd_create("mover-tls", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd


def _path(fd: int) -> str:
    """OpenSSL loads certificates from paths only."""
    return f"/proc/self/fd/{fd}"
