"""Which URLs Mover reads for its clients: rules, no I/O. Who asks for bytes by URL must not reach what Mover can reach.

    URL ──parse──► scheme, host, port ──resolve──► every address ──check──► the one that is connected to
     ▲                                                                                  │
     └──────────────────────────── a redirect: all of it again ◄────────────────────────┘

What is judged is the address that is connected to, never a name: a name may mean another address a moment later.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import msgspec

from config.allow import Address, Network, network_of
from config.errors import shown
from config.settings import LibrarySettings

PORTS = {"http": 80, "https": 443}
URL_BYTES = 2048
REDIRECTS_MOST = 5
_NAME = re.compile(r"(?=.{1,253}\.?\Z)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*\.?")
# What resolvers take for an IPv4 address, however it is written: 127.1, 2130706433, 0x7f.0.0.1, 0177.0.0.1.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PRINTABLE = re.compile(r"[!-~]+")


class UrlRefused(Exception):
    """A URL that is not read; `message` says why, and never shows the URL's user, password or query."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UrlRules(msgspec.Struct, frozen=True):
    """`allow`: hosts by name, addresses and networks that may be read although they are not public ones; `ports`;
    `ca_file`: authorities that sign servers' certificates, the system's if empty.
    """

    allow: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    ca_file: str = ""


def rules_of(library: LibrarySettings) -> UrlRules:
    """The rules that the settings give."""
    return UrlRules(library.url_allow, library.url_ports, library.url_ca_file)


class Target(NamedTuple):
    """Where a URL leads. `host` is a name in lower case, or an address as `ipaddress` writes it; `path` begins with a
    slash and has the query; `url` is the same again, without what follows `#`.
    """

    url: str
    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> str:
        """Scheme, host and port: what may be shown in logs and errors."""
        return f"{self.scheme}://{self.authority}"

    @property
    def authority(self) -> str:
        """Host and port as the Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


def parse_url(url: str, rules: UrlRules) -> Target:
    """Where the URL leads, if it may lead there as far as can be told without asking for a name's address.

    Raises UrlRefused.
    """
    if len(url) > URL_BYTES:
        raise UrlRefused(f"the URL has {len(url)} characters: {URL_BYTES} are the most")
    if not _PRINTABLE.fullmatch(url) or "\\" in url:
        raise UrlRefused("the URL has characters that must be percent-encoded (or, in a host, be written in punycode)")
    try:
        parts = urlsplit(url)
        scheme, netloc = parts.scheme.lower(), parts.netloc
    except ValueError:
        raise UrlRefused("the URL cannot be read: its host is no name and no address") from None
    if scheme not in PORTS:
        raise UrlRefused(f"the URL's scheme is {shown(scheme)}: only http and https are read")
    if "@" in netloc:
        raise UrlRefused("the URL has a user or a password before its host: leave them out")
    host, port = _host_and_port(netloc, PORTS[scheme])
    if port not in rules.ports:
        allowed = ", ".join(map(str, rules.ports)) or "none"
        raise UrlRefused(f"the URL's port {port} is not allowed: library.url_ports has {allowed}")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _judged(Target(parts._replace(fragment="").geturl(), scheme, host, port, path), rules)


def _judged(target: Target, rules: UrlRules) -> Target:
    """A host that is written as an address is judged at once."""
    address = _literal(target.host)
    if address is not None:
        check_addresses(target.host, [str(address)], rules)
    return target


def parse_redirect(before: Target, location: str, rules: UrlRules) -> Target:
    """Where a redirect leads. Raises UrlRefused."""
    try:
        target = parse_url(urljoin(before.url, location.strip()), rules)
    except ValueError:
        raise UrlRefused("the server redirects to what is no URL") from None
    except UrlRefused as refused:
        raise UrlRefused(f"the server redirects, and {refused.message}") from None
    if (before.scheme, target.scheme) == ("https", "http"):
        raise UrlRefused("the server redirects from https to http, where anybody could change the data")
    return target


def _host_and_port(netloc: str, default: int) -> tuple[str, int]:
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(?::([0-9]{0,5}))?", netloc)
    if match is None:
        raise UrlRefused(f"the URL's host {shown(netloc)} is no name and no address")
    return _host(match[1].lower()), int(match[2]) if match[2] else default


def _host(text: str) -> str:
    if text.startswith("["):
        try:
            return str(ipaddress.IPv6Address(text[1:-1]))
        except ValueError:
            raise UrlRefused(f"the URL's host {shown(text)} is no IPv6 address") from None
    host = text.removesuffix(".")
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise UrlRefused(f"the URL's host {shown(text)} is no IPv4 address: write four decimal numbers") from None
    if not _NAME.fullmatch(host):
        raise UrlRefused(f"the URL's host {shown(text)} is no name and no address")
    return host


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


# -- addresses -----------------------------------------------------------------------------------------------


def check_addresses(host: str, addresses: Sequence[str], rules: UrlRules) -> None:
    """Whether each of the addresses may be connected to: one that may not spoils the name. Raises UrlRefused."""
    if host in _names(rules):
        return
    for text in addresses:
        why = _why_refused(ipaddress.ip_address(text), rules)
        if why is not None:
            what = shown(host) if host == text else f"{shown(host)}, which is {text},"
            raise UrlRefused(f"the URL's host {what} is not read: it is {why} (library.url_allow)")


def _names(rules: UrlRules) -> set[str]:
    return {entry.lower().removesuffix(".") for entry in rules.allow if network_of(entry) is None}


def _why_refused(address: Address, rules: UrlRules) -> str | None:
    """What is wrong with an address, or with one that it stands for; None if nothing is."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    address = mapped or address
    if any(address in network for network in map(network_of, rules.allow) if network is not None):
        return None
    for network, what in REFUSED:
        if address in network:
            return what
    if isinstance(address, ipaddress.IPv6Address):
        if not any(address in network for network in _PUBLIC6):
            return "no public address"
        for inner in _embedded(address):
            why = _why_refused(inner, rules)
            if why is not None:
                return f"{inner} in another form, and that is {why}"
    return None


def _embedded(address: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """The IPv4 addresses that a gateway, or this host itself, would make of an IPv6 address."""
    number, found = int(address), list[ipaddress.IPv4Address]()
    if address in _NAT64:
        found.append(ipaddress.IPv4Address(number & 0xFFFFFFFF))
    if address.sixtofour is not None:
        found.append(address.sixtofour)
    if (number >> 32) & 0xFDFFFFFF == 0x5EFE:  # ISATAP (RFC 5214), whichever its universal bit
        found.append(ipaddress.IPv4Address(number & 0xFFFFFFFF))
    return found


_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_PUBLIC6 = (ipaddress.ip_network("2000::/3"), _NAT64)
# IANA's registries of special addresses (RFC 6890 and after); by ourselves, since Python's versions differ in them.
REFUSED: tuple[tuple[Network, str], ...] = tuple(
    (ipaddress.ip_network(network), what)
    for network, what in (
        ("0.0.0.0/8", "this host"),
        ("10.0.0.0/8", "a private address"),
        ("100.64.0.0/10", "a provider's private address"),
        ("127.0.0.0/8", "this host"),
        ("169.254.0.0/16", "a link-local address"),
        ("172.16.0.0/12", "a private address"),
        ("192.0.0.0/24", "a reserved address"),
        ("192.0.2.0/24", "an address for examples"),
        ("192.88.99.0/24", "a relay's address"),
        ("192.168.0.0/16", "a private address"),
        ("198.18.0.0/15", "an address for benchmarks"),
        ("198.51.100.0/24", "an address for examples"),
        ("203.0.113.0/24", "an address for examples"),
        ("224.0.0.0/4", "a multicast address"),
        ("240.0.0.0/4", "a reserved address"),
        ("::/128", "this host"),
        ("::1/128", "this host"),
        ("fc00::/7", "a private address"),
        ("fe80::/10", "a link-local address"),
        ("fec0::/10", "a private address"),
        ("ff00::/8", "a multicast address"),
        ("2001::/23", "a reserved address"),  # Teredo, benchmarks, ORCHID and others
        ("2001:db8::/32", "an address for examples"),
        ("3fff::/20", "an address for examples"),
    )
)
