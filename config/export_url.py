"""The URLs that name an export, and what they mean.

    nbd:unix:/PATH[:exportname=NAME]         qemu's older form; NAME is taken as it stands
    nbd:HOST:PORT[:exportname=NAME]
    nbd://HOST[:PORT]/NAME                   the NBD URI specification; everything percent-encoded
    nbd+unix:///NAME?socket=/PATH
    nbds://[USER@]HOST[:PORT]/NAME           over TLS: ?tls-certificates=DIR, or ?tls-psk-file=FILE and USER
    nbds+unix://[USER@]/NAME?socket=/PATH
    file:///PATH                             a raw file or block device, percent-encoded

An IPv6 address stands in brackets. The standard forms take `bitmap=NAME` in the query, which is Mover's own: the
dirty bitmap that `context=dirty` reports.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from msgspec.structs import replace

from config.errors import shown
from config.export import Export

DEFAULT_PORT = 10809
# The NBD protocol's limit for a string: export names, and the meta context that names a bitmap.
STRING_MAX_BYTES = 4096
# Bytes of sockaddr_un.sun_path, less its NUL (unix(7)).
SOCKET_PATH_MAX_BYTES = 107
# PATH_MAX of limits.h, less its NUL.
FILE_PATH_MAX_BYTES = 4095
BITMAP_CONTEXT = "qemu:dirty-bitmap:"

_HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_EXPORT_NAME = ":exportname="
_STANDARD = ("nbd://", "nbds://", "nbd+unix://", "nbds+unix://")
_FORMS = (
    "nbd:unix:/PATH[:exportname=NAME], nbd:HOST:PORT[:exportname=NAME], nbd://HOST[:PORT]/NAME, "
    "nbd+unix:///NAME?socket=/PATH or file:///PATH"
)


class ExportUrlError(ValueError):
    """A URL that names no export: `url` as it was given, `fault` what is wrong with it."""

    def __init__(self, url: str, fault: str) -> None:
        super().__init__(url, fault)
        self.url = url
        self.fault = fault

    def __str__(self) -> str:
        return f"export URL {shown(self.url)}: {self.fault}"


class _Fault(Exception):
    """What is wrong, before it is known whose URL it is in."""


def parse_export(url: str) -> Export:
    """The export that `url` names, in canonical form: host in lower case, socket path normalised.

    Raises ExportUrlError.
    """
    try:
        return _parse(url)
    except _Fault as fault:
        raise ExportUrlError(url, str(fault)) from fault


def _parse(url: str) -> Export:
    if not _is_utf8(url):
        raise _Fault("is not valid UTF-8")
    if url.startswith(_STANDARD):
        return _standard(_split(url))
    if url.startswith("nbd:unix:"):
        return _old_unix(url.removeprefix("nbd:unix:"))
    if url.startswith("nbd:"):
        return _old_tcp(url.removeprefix("nbd:"))
    if url.startswith("file:"):
        return _file(url)
    raise _Fault(f"must be one of {_FORMS}")


def _old_unix(rest: str) -> Export:
    path, _, name = rest.partition(_EXPORT_NAME)
    return Export(transport="unix", socket=_socket(path), name=_name(name))


def _old_tcp(rest: str) -> Export:
    address, _, name = rest.partition(_EXPORT_NAME)
    host, port = _host_and_port(address)
    if port is None:
        raise _Fault(f"no port in {shown(address)}: this form is nbd:HOST:PORT[:exportname=NAME]")
    return Export(transport="tcp", host=host, port=port, name=_name(name))


def _file(url: str) -> Export:
    if not url.startswith("file:///"):
        raise _Fault("a file is written file:///PATH, its path absolute and on this host")
    for mark, escape in (("#", "%23"), ("?", "%3F")):
        if mark in url:
            raise _Fault(f"has a '{mark}', which is written {escape}")
    path = _absolute(_decoded(url.removeprefix("file://")), "path")
    if len(path.encode()) > FILE_PATH_MAX_BYTES:
        raise _Fault(f"path is {len(path.encode())} bytes long, at most {FILE_PATH_MAX_BYTES} are possible")
    return Export(transport="file", path=path)


class _Parts(NamedTuple):
    """A standard URL cut at its marks. Only `options` are decoded yet."""

    scheme: str
    user: str | None
    address: str
    path: str
    options: dict[str, str]

    @property
    def tls(self) -> bool:
        return self.scheme.startswith("nbds")

    @property
    def unix(self) -> bool:
        return self.scheme.endswith("+unix")


def _split(url: str) -> _Parts:
    scheme, _, rest = url.partition("://")
    if "#" in rest:
        raise _Fault("has a '#', which is written %23")
    before, _, query = rest.partition("?")
    authority, _, path = before.partition("/")
    user, at, address = authority.rpartition("@")
    return _Parts(scheme, user if at else None, address, path, _options(query))


def _standard(parts: _Parts) -> Export:
    _check_options(parts)
    bitmap = parts.options.get("bitmap")
    return replace(
        _unix_address(parts) if parts.unix else _tcp_address(parts),
        name=_name(_decoded(parts.path)),
        bitmap=None if bitmap is None else _bitmap(bitmap),
        tls=parts.tls,
        tls_certificates=_tls_path(parts, "tls-certificates"),
        tls_psk_file=_tls_path(parts, "tls-psk-file"),
        tls_username=_user(parts),
    )


def _unix_address(parts: _Parts) -> Export:
    if parts.address:
        raise _Fault(
            f"{shown(parts.address)} stands where nothing may: the form is {parts.scheme}:///NAME?socket=/PATH"
        )
    if "socket" not in parts.options:
        raise _Fault(f"no socket: the form is {parts.scheme}:///NAME?socket=/PATH")
    return Export(transport="unix", socket=_socket(parts.options["socket"]))


def _tcp_address(parts: _Parts) -> Export:
    host, port = _host_and_port(parts.address)
    return Export(transport="tcp", host=host, port=DEFAULT_PORT if port is None else port)


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for item in query.split("&") if query else ():
        key, _, value = item.partition("=")
        if key in options:
            raise _Fault(f"query key {shown(key)} is given twice")
        options[key] = _decoded(value)
    return options


def _check_options(parts: _Parts) -> None:
    known = ["bitmap"]
    known += ["socket"] if parts.unix else []
    known += ["tls-certificates", "tls-psk-file"] if parts.tls else []
    for key in parts.options:
        if key not in known:
            raise _Fault(f"unknown query key {shown(key)}: {parts.scheme}:// knows {', '.join(known)}")
    if "tls-certificates" in parts.options and "tls-psk-file" in parts.options:
        raise _Fault("tls-certificates and tls-psk-file exclude each other: give the one that the server wants")


def _host_and_port(address: str) -> tuple[str, int | None]:
    if address.startswith("["):
        inner, bracket, rest = address[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise _Fault(f"bad address {shown(address)}: an IPv6 address is written [ADDRESS]:PORT")
        return _ipv6(inner), _port(rest[1:]) if rest else None
    host, colon, port = address.partition(":")
    if ":" in port:
        raise _Fault(f"bad address {shown(address)}: an IPv6 address is written [ADDRESS]:PORT")
    return _host_name(_decoded(host)), _port(port) if colon else None


def _ipv6(text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(_decoded(text)))
    except ipaddress.AddressValueError as error:
        raise _Fault(f"bad IPv6 address {shown(text)}: {error}") from error


def _host_name(text: str) -> str:
    host = text.lower()
    if not host:
        raise _Fault("no host")
    if not _HOST_NAME.fullmatch(host):
        raise _Fault(f"bad host {shown(text)}: it is a name of letters, digits, '-' and '.', or an address")
    return host


def _port(text: str) -> int:
    # isascii: int() also takes other scripts' digits.
    port = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    if not 1 <= port <= 65535:
        raise _Fault(f"bad port {shown(text)}: it is a number from 1 to 65535")
    return port


def _socket(path: str) -> str:
    socket = _absolute(path, "socket path")
    length = len(socket.encode())
    if length > SOCKET_PATH_MAX_BYTES:
        raise _Fault(f"socket path is {length} bytes long, at most {SOCKET_PATH_MAX_BYTES} are possible")
    return socket


def _tls_path(parts: _Parts, key: str) -> str | None:
    return _absolute(parts.options[key], key) if key in parts.options else None


def _absolute(path: str, what: str) -> str:
    if not path.startswith("/"):
        raise _Fault(f"{what} {shown(path)} must be absolute")
    if "\0" in path:
        raise _Fault(f"{what} {shown(path)} must not hold a NUL")
    # Where a directory is a symbolic link, normpath would make another file of a path with "..".
    if ".." in path.split("/"):
        raise _Fault(f"{what} {shown(path)} must not hold '..'")
    # normpath keeps two leading slashes, as POSIX lets it.
    return "/" + posixpath.normpath(path).lstrip("/")


def _name(name: str) -> str:
    return _string(name, "export name", STRING_MAX_BYTES)


def _bitmap(name: str) -> str:
    if not name:
        raise _Fault("bitmap is empty: name the dirty bitmap")
    return _string(name, "bitmap name", STRING_MAX_BYTES - len(BITMAP_CONTEXT))


def _user(parts: _Parts) -> str | None:
    if parts.user is None:
        return None
    if not parts.tls:
        raise _Fault("a user name is for TLS only: nbds:// or nbds+unix://")
    user = _decoded(parts.user)
    if not user:
        raise _Fault("the user name before '@' is empty")
    return _string(user, "user name", STRING_MAX_BYTES)


def _string(text: str, what: str, limit: int) -> str:
    if "\0" in text:
        raise _Fault(f"{what} {shown(text)} must not hold a NUL")
    length = len(text.encode())
    if length > limit:
        raise _Fault(f"{what} is {length} bytes long, at most {limit} are possible")
    return text


def _decoded(text: str) -> str:
    """`text` with its percent-escapes decoded, once."""
    bad = _BAD_ESCAPE.search(text)
    if bad:
        raise _Fault(f"bad escape {shown(text[bad.start() : bad.start() + 3])}: a '%' itself is written %25")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError as error:
        raise _Fault(f"{shown(text)} is not UTF-8 when decoded") from error


def _is_utf8(text: str) -> bool:
    """False for text that came from bytes which are not UTF-8 (PEP 383), or from JSON with half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
