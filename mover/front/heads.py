"""What a request's head may look like. Rules, no I/O.

Sanic is more lenient: a bare LF, a blank or a vertical tab beside a colon, a length in Thai digits pass. A proxy before
us may read them otherwise, and then a body is taken for a request (RFC 9112, 2.2, 3, 5 and 6.3; RFC 9110, 5).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

# Most of a head; sanic_connections.py asks.
HEAD_BYTES = 8192

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_LINE = re.compile(_TOKEN + rb" [!-~]+ HTTP/1\.[01]")
# Values hold what they like but control characters; a tab is none.
_HEADERS = re.compile(rb"(?:\r\n" + _TOKEN + rb":[^\x00-\x08\x0a-\x1f\x7f]*)*")
# Blanks around the value are stripped afterwards: an expression that did so would try each of them with each other.
_FRAMING = re.compile(rb"\r\n(content-length|transfer-encoding):([^\r]*)", re.IGNORECASE)
# More digits are no length of anything.
_LENGTH = re.compile(rb"[0-9]{1,19}")


class LargeHeads(NamedTuple):
    """The paths whose heads may have more: Glance's v1 puts all properties of an image into one."""

    lines: re.Pattern[bytes]
    most_bytes: int


def large_heads(prefixes: Iterable[str], most_bytes: int) -> LargeHeads:
    """For paths that are one of these, or beneath it."""
    paths = "|".join(re.escape(prefix) for prefix in prefixes if prefix)
    return LargeHeads(re.compile(rb"[A-Z]{3,8} (?:%b)(?=[/? ])" % paths.encode()), most_bytes)


def most_bytes(begun: bytes | bytearray, large: LargeHeads | None) -> int:
    """How long a head may be that begins so."""
    return large.most_bytes if large is not None and large.lines.match(begun) else HEAD_BYTES


def fault(head: bytes, has_body: bool) -> str | None:
    """What is wrong with a head, which ends before its empty line; None if it leaves no doubt.

    `has_body` says that a header about the body stands in it.
    """
    line = _LINE.match(head)
    if line is None:
        return "the request line is not METHOD TARGET HTTP/1.1 with one blank between them, in visible ASCII"
    if not _HEADERS.fullmatch(head, line.end()):
        return "a line of the head is no header: its name is a token, a colon follows at once, nothing is folded"
    return _framing_fault(head) if has_body else None


def _framing_fault(head: bytes) -> str | None:
    [(name, value), *more] = _FRAMING.findall(head) or [(b"", b"")]
    value = value.strip(b" \t")
    if more:
        return "the length of the body is given twice"
    if name.lower() == b"content-length" and not _LENGTH.fullmatch(value):
        return "Content-Length is no number"
    if name.lower() == b"transfer-encoding" and value != b"chunked":  # in capitals, Sanic does not know it
        return "Transfer-Encoding is not chunked"
    return None
