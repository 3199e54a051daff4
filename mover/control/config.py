"""What CloudStack says of a transfer, over its control socket and in files: which export it means. Rules, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from config.export import Export
from config.export_url import ExportUrlError, parse_export

DEFAULT_IDLE_S = 600
# What an idle time below one second means.
DAY_S = 86400
# Above this a number is a mistake, and some are too large to be kept.
LONGEST_S = 100 * 365 * DAY_S

Config = Mapping[str, object]
# A URL before its export name, and the options of its query: both are percent-encoded.
Address = tuple[str, list[str]]


class BadTransfer(Exception):
    """A transfer that cannot be; `message` is what CloudStack's own server says of it, where that says anything."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def idle_s(config: Config) -> int:
    """After how many seconds without a request the transfer ends. Raises BadTransfer."""
    seconds = config.get("idle_timeout_seconds", DEFAULT_IDLE_S)
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        raise BadTransfer("idle_timeout_seconds must be an integer")
    return min(seconds, LONGEST_S) if seconds >= 1 else DAY_S


def export_of(config: Config, *, tcp: bool = False) -> Export:
    """The export of a transfer; `tcp` allows the oldest form, a host and a port. Raises BadTransfer."""
    backend = config.get("backend")
    if backend is None:
        backend = "nbd"
    if not isinstance(backend, str):
        raise BadTransfer("invalid backend type")
    match backend.lower():
        case "nbd":
            return _nbd_export(_tcp_address(config) if tcp and "host" in config else _unix_address(config), config)
        case "file":
            why = "missing/invalid file path for file backend"
            return _file_export(_text(config, "file", why), why)
        case other:
            raise BadTransfer(f"unsupported backend: {other}")


def _file_export(path: str, why: str) -> Export:
    try:
        return parse_export(f"file://{quote(path)}")
    except ExportUrlError as error:
        raise BadTransfer(why) from error


def _unix_address(config: Config) -> Address:
    why = "missing/invalid socket path for nbd backend"
    address = "nbd+unix://", [f"socket={quote(_text(config, 'socket', why))}"]
    _parsed(address, "", why)
    return address


def _tcp_address(config: Config) -> Address:
    why = "missing/invalid host or port for nbd backend"
    host, port = _text(config, "host", why), config.get("port")
    # In JSON an IPv6 address may stand without the brackets that a URL wants.
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    address: Address = f"nbd://{quote(host, safe='[:]')}:{quote(str(port).strip())}", []
    _parsed(address, "", why)
    return address


def _nbd_export(address: Address, config: Config) -> Export:
    """The export at an address that is good."""
    name = config.get("export")
    if name is not None and not (isinstance(name, str) and name):
        raise BadTransfer("invalid export name")
    export = _parsed(address, name or "", "invalid export name")
    bitmap = config.get("export_bitmap")
    if bitmap is None or bitmap == "":
        return export
    if not isinstance(bitmap, str):
        raise BadTransfer("invalid export_bitmap")
    base, options = address
    return _parsed((base, [*options, f"bitmap={quote(bitmap)}"]), name or "", "invalid export_bitmap")


def _text(config: Config, key: str, why: str) -> str:
    value = config.get(key)
    if not isinstance(value, str) or not value.strip():
        raise BadTransfer(why)
    return value.strip()


def _parsed(address: Address, name: str, why: str) -> Export:
    base, options = address
    try:
        return parse_export(f"{base}/{quote(name, safe='')}" + (f"?{'&'.join(options)}" if options else ""))
    except ExportUrlError as error:
        raise BadTransfer(why) from error
