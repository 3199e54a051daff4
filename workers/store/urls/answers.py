"""What a server's answer to a request for bytes means; rules without I/O.

200   all of it: the server has no ranges, or the source is another one than it was
206   the range: just the one that was asked for, of the source that was seen before
416   a range of nothing: the source is empty
3xx   a redirect
4xx   not to be had
408, 425, 429, 5xx   not now: to be tried again
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from hashlib import sha256
from typing import NamedTuple

REDIRECTS = frozenset({301, 302, 303, 307, 308})
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
# A signature in a URL that a redirect led to may have expired: the first URL gives a new one.
STALE = frozenset({401, 403, 404, 410})
LONGEST_PAUSE_S = 30.0
VERSION_MOST = 200
_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,19})-([0-9]{1,19})|\*)/([0-9]{1,19}|\*)", re.ASCII)
_LENGTH = re.compile(r"[0-9]{1,19}", re.ASCII)


class BadAnswer(Exception):
    """An answer that cannot be used, and would be no better the next time; the text says what it is."""


class Changed(Exception):
    """The source is another one than it was."""


class Found(NamedTuple):
    """A source: its size if the server tells it, whether it has ranges, and what tells it from another one.

    `version` is empty where the server sends neither an ETag nor a date: then only the size can tell.
    """

    size: int | None
    ranges: bool
    version: str


class Range(NamedTuple):
    """A Content-Range: bytes `first` to `last`, both included, or none (-1), of `size`."""

    first: int
    last: int
    size: int | None


def found_in(status: int, headers: Mapping[str, str]) -> Found:
    """The source, from the answer to a request for its first byte. Raises BadAnswer."""
    check_plain(headers)
    if status == 200:
        return Found(_length(headers), False, version_of(headers))
    span = content_range(headers)
    if status == 416 and span.size == 0:
        return Found(0, True, version_of(headers))
    if status != 206 or span.size is None or (span.first, span.last) != (0, 0):
        raise BadAnswer("it answers a request for a range with another one, or without the size")
    return Found(span.size, True, version_of(headers))


def check_part(found: Found, headers: Mapping[str, str], first: int, last: int) -> None:
    """Whether an answer 206 is the range that was asked for, of the same source. Raises BadAnswer, Changed."""
    check_plain(headers)
    span = content_range(headers)
    if span.size not in (None, found.size) or version_of(headers) != found.version:
        raise Changed
    length = _length(headers)
    if (span.first, span.last) != (first, last) or length not in (None, last - first + 1):
        raise BadAnswer("it sends another range than was asked for")


def check_whole(found: Found, headers: Mapping[str, str]) -> None:
    """Whether an answer 200 is the same source. Raises BadAnswer, Changed."""
    check_plain(headers)
    if (_length(headers), version_of(headers)) != (found.size, found.version):
        raise Changed


def check_plain(headers: Mapping[str, str]) -> None:
    """Raises BadAnswer where the body is packed."""
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise BadAnswer(f"it sends the data packed ({coding[:20]!a}), although it was asked not to")
    if headers.get("content-type", "").strip().lower().startswith("multipart/byteranges"):
        raise BadAnswer("it sends several ranges where one was asked for")


def content_range(headers: Mapping[str, str]) -> Range:
    """Raises BadAnswer where there is none that makes sense."""
    match = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
    if match is None:
        raise BadAnswer("it sends a range without saying which")
    size = None if match[3] == "*" else int(match[3])
    if match[1] is None:
        return Range(-1, -1, size)
    first, last = int(match[1]), int(match[2])
    if last < first or (size is not None and last >= size):
        raise BadAnswer("it sends a range that cannot be")
    return Range(first, last, size)


def _length(headers: Mapping[str, str]) -> int | None:
    text = headers.get("content-length")
    if text is None or "transfer-encoding" in headers:
        return None
    if _LENGTH.fullmatch(text.strip()) is None:
        raise BadAnswer("its Content-Length is no number")
    return int(text)


def version_of(headers: Mapping[str, str]) -> str:
    """What tells a source from another one at the same URL: a strong ETag, or whatever else there is."""
    etag = headers.get("etag", "").strip()
    if etag.startswith('"'):
        version = etag
    else:
        version = " ".join(part for part in (etag, headers.get("last-modified", "").strip()) if part)
    return version if len(version) <= VERSION_MOST else sha256(version.encode(errors="replace")).hexdigest()


def pause_of(headers: Mapping[str, str], now_s: float) -> float:
    """How long the server asks to be left alone, within limits."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(LONGEST_PAUSE_S, float(text[:6]))
    try:
        return min(LONGEST_PAUSE_S, max(0.0, parsedate_to_datetime(text).timestamp() - now_s))
    except (ValueError, OverflowError):
        return 0.0
