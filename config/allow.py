"""What tickets may name: the allow-lists of `[allow]`. What the settings themselves name is not judged."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from config.errors import shown
from config.export import Export
from config.roots import NotAllowed, Roots
from config.settings import AllowSettings, Settings
from config.store_settings import FileStore, Store
from config.stores import directories

ANY_HOST = "*"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def roots_of(settings: Settings) -> Roots:
    """The paths that tickets may name."""
    return roots_in(settings.allow, settings.serve.state_dir, settings.store)


def roots_in(allow: AllowSettings, state_dir: str, stores: Iterable[Store]) -> Roots:
    """The same, of a part of the settings."""
    kept = tuple(one.path for store in stores if isinstance(store, FileStore) for one in directories(store))
    return Roots(allow.files, allow.nbd_sockets, allow.tls_files, (state_dir,), kept)


def check_export(export: Export, allow: AllowSettings, roots: Roots) -> None:
    """Look where the export's paths lead now. May block on a file system. Raises NotAllowed."""
    if export.transport == "file":
        roots.file(export.path)
    elif export.transport == "unix":
        roots.socket(export.socket)
    else:
        check_host(export.host, allow.nbd_hosts)
    for path in (export.tls_certificates, export.tls_psk_file):
        if path is not None:
            roots.credentials(path)


def check_host(host: str, hosts: tuple[str, ...]) -> None:
    """Raises NotAllowed for a host that no entry is. Names are not resolved: a name is only ever itself."""
    if not any(_host_is(host, entry) for entry in hosts):
        why = f"it is none of {', '.join(hosts)}" if hosts else "that is empty"
        raise NotAllowed(f"NBD host {shown(host)}", "allow.nbd_hosts", why)


def _host_is(host: str, entry: str) -> bool:
    if entry == ANY_HOST or entry.lower() == host:
        return True
    network, address = network_of(entry), _address(host)
    return network is not None and address is not None and address in network


def network_of(entry: str) -> Network | None:
    """The network, or the address as one of a single host, that an entry is; None for a name."""
    try:
        return ipaddress.ip_network(entry)
    except ValueError:
        return None


def _address(host: str) -> Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
