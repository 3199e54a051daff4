"""How VISOR's clients sign a request: base 64 of HMAC-SHA1 over its method, some of its headers, and its path."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

SCHEME = "VISOR"
META = "x-image-meta-"
SIGNED = ("content-md5", "content-type", "date")


def description(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    """What is signed. `headers` have names in lower case; `path` is without the query.

    METHOD, then in order of their names the values of `SIGNED`, empty where there is none but for the date, and
    NAME:VALUE of each x-image-meta-NAME; a line each. Then the path.
    """
    signed = {name: value for name, value in headers.items() if name in SIGNED or name.startswith(META)}
    signed = {"content-md5": "", "content-type": "", **signed}
    lines = [f"{name}:{value}" if name.startswith(META) else value for name, value in sorted(signed.items())]
    # Values that were not UTF-8 came as lone surrogates, and are signed as they came.
    return "\n".join([method, *lines, path]).encode("utf-8", "surrogateescape")


def sign(secret: str, described: bytes) -> str:
    """The signature of a description."""
    return base64.b64encode(hmac.new(secret.encode(), described, hashlib.sha1).digest()).decode()


def is_signed(secret: str, described: bytes, signature: str) -> bool:
    """Whether this is the signature, in a time that says nothing of it."""
    return hmac.compare_digest(sign(secret, described).encode(), signature.encode("utf-8", "surrogateescape"))


def seconds_of(date: str | None) -> float | None:
    """Seconds since 1970 of an RFC 1123 date; None of what is none."""
    try:
        found = parsedate_to_datetime(date or "")
        return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def credentials(authorization: str) -> tuple[str, str] | None:
    """Access key and signature of `VISOR KEY:SIGNATURE`; None of what is no such thing."""
    scheme, _, rest = authorization.strip().partition(" ")
    key, _, signature = rest.strip().rpartition(":")
    return (key, signature) if scheme == SCHEME and key else None
