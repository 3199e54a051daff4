"""The subject of a client's certificate as one line, as openssl prints it with `-nameopt RFC2253,utf8,-esc_msb`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Python has the long names (RFC 4514, 3, and OpenSSL's own).
_SHORT = {
    "commonName": "CN",
    "surname": "SN",
    "countryName": "C",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "streetAddress": "street",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "givenName": "GN",
    "domainComponent": "DC",
    "userId": "UID",
}
_SPECIAL = '"+,;<>\\'


def subject_of(certificate: Mapping[str, Any]) -> str:
    """The subject of what `SSLObject.getpeercert()` returns: `CN=appliance,O=Example`, the last part first."""
    names: Sequence[Sequence[tuple[str, str]]] = certificate.get("subject", ())
    return ",".join("+".join(_part(*part) for part in reversed(parts)) for parts in reversed(names))


def _part(name: str, value: str) -> str:
    return f"{_SHORT.get(name, name)}={_escaped(value)}"


def _escaped(value: str) -> str:
    escaped = "".join(_escaped_character(character) for character in value)
    if value[:1] in ("#", " "):
        escaped = "\\" + escaped
    if len(value) > 1 and value.endswith(" "):
        escaped = escaped[:-1] + "\\ "
    return escaped


def _escaped_character(character: str) -> str:
    if character in _SPECIAL:
        return "\\" + character
    if ord(character) < 0x20 or ord(character) == 0x7F:
        return f"\\{ord(character):02X}"
    return character
