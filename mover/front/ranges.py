"""HTTP's ranges: what `Range` asks for and where `Content-Range` puts a body. Offsets and lengths in bytes."""

from __future__ import annotations

import re

import msgspec

# How much of a client's header an error repeats.
_SHOWN = 80
# Longer numbers than any image's size; Python refuses to read numbers of more than 4300 digits.
_DIGITS_MOST = 19
# RFC 9110, 5.6.1: a list may have empty elements, and blanks around its commas only. Each blank and comma can match
# in one way, or a header of commas and blanks would take exponential time.
_RANGE = re.compile(r"bytes=(?:,[ \t]*)*([0-9]*)-([0-9]*)(?:[ \t]*,)*", re.ASCII | re.IGNORECASE)
_CONTENT_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+|\*)/([0-9]+|\*)", re.ASCII | re.IGNORECASE)


class Span(msgspec.Struct, frozen=True):
    """A half-open range of an image."""

    offset: int
    length: int


class RangeRefused(ValueError):
    """A range that cannot be had: `value` is the header (or its beginning), `limit` the image's size."""

    def __init__(self, value: str, limit: int, why: str) -> None:
        super().__init__(f"range {value[:_SHOWN]!r} {why} (image size {limit})")
        self.value = value[:_SHOWN]
        self.limit = limit


class Unsatisfiable(RangeRefused):
    """The range is well formed and the image has no such bytes: 416."""


class BadRange(RangeRefused):
    """The header is no single range of bytes: 400, or 416 by imageio's dialect."""


def parse_range(header: str, size: int) -> Span:
    """The bytes that a `Range` header asks for, clamped to the image, at least one.

    Raises BadRange for several ranges, other units, junk and `-0`; Unsatisfiable for a start at or after the
    end and for an end before the start.
    """
    found = _RANGE.fullmatch(header.strip(" \t"))
    if found is None or found[1] == found[2] == "":
        raise BadRange(header, size, _reason(header))
    if not found[1]:
        return _suffix(header, _number(found[2]), size)
    start = _number(found[1])
    end = _number(found[2]) + 1 if found[2] else size
    if found[2] and end <= start:
        raise Unsatisfiable(header, size, "ends before it starts")
    if start >= size:
        raise Unsatisfiable(header, size, "starts at or after the end")
    return Span(start, min(end, size) - start)


def parse_range_to_write(header: str, content_length: int, size: int) -> Span:
    """Where a `Range` header puts a body of `content_length` bytes; unlike for reading, nothing is clamped.

    Raises BadRange for what `parse_range` does and for a range of another length; Unsatisfiable if it does not fit
    the image.
    """
    span = parse_range(header, size)
    found = _RANGE.fullmatch(header.strip(" \t"))
    assert found is not None
    if found[2] and _number(found[2]) >= size + (not found[1]):
        raise Unsatisfiable(header, size, "reaches out of the image")
    if span.length != content_length:
        raise BadRange(header, size, f"is not of Content-Length {content_length}")
    return span


def parse_content_range(header: str, content_length: int, size: int, end_counts: bool = True) -> Span:
    """Where `Content-Range` puts a body of `content_length` bytes: only its first number decides.

    The last byte and the whole size may be left out (`*`), and a size need not be the image's. Raises BadRange
    for junk and, if `end_counts` (not for CloudStack's transfers), for a last byte that contradicts the rest;
    Unsatisfiable if the body does not fit the image.
    """
    found = _CONTENT_RANGE.fullmatch(header.strip(" \t"))
    if found is None:
        raise BadRange(header, size, "is not 'bytes a-b/*' or 'bytes a-b/n'")
    start = _number(found[1])
    if end_counts and found[2] != "*":
        last = _number(found[2])
        if last + 1 != start + content_length or last < start:
            raise BadRange(header, size, f"contradicts Content-Length {content_length}")
        if found[3] != "*" and last >= _number(found[3]):
            raise BadRange(header, size, "ends after the size it gives")
    if start + content_length > size:
        raise Unsatisfiable(header, size, f"with Content-Length {content_length} ends after the image")
    return Span(start, content_length)


def _suffix(header: str, length: int, size: int) -> Span:
    if not length:
        raise BadRange(header, size, "asks for the last 0 bytes")
    if not size:
        raise Unsatisfiable(header, size, "asks for bytes of an empty image")
    return Span(size - min(length, size), min(length, size))


def _reason(header: str) -> str:
    if "," in header:
        return "is not exactly one range"
    return "is not 'bytes=a-b', 'bytes=a-' or 'bytes=-n'"


def _number(digits: str) -> int:
    significant = digits.lstrip("0")
    return int(significant or "0") if len(significant) <= _DIGITS_MOST else 10**_DIGITS_MOST
