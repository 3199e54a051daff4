"""Extents as servers list them, read as they arrive, and checked: no gap and no overlap is ever guessed over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

MOST_EXTENT_BYTES = 4096


class Extent(NamedTuple):
    """A run of the image. `zero`: reads as zeros. `hole`: takes no space. `dirty`: has changed; None: not asked."""

    start: int
    length: int
    zero: bool
    hole: bool = False
    dirty: bool | None = None

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.start + self.length


class _Listed(msgspec.Struct):
    """One extent as it is listed; of a dirty listing some servers do not say `zero`."""

    start: int
    length: int
    zero: bool = False
    hole: bool = False
    dirty: bool | None = None


class ExtentsWrong(Exception):
    """A listing that is not what the contract says."""


def parse(pieces: Iterable[bytes | memoryview]) -> Iterator[Extent]:
    """The extents of a listing, an array or one object a line, neighbours that say the same joined.

    Raises ExtentsWrong where it does not begin at 0, has a gap, overlaps, or breaks off.
    """
    at = 0
    last: Extent | None = None
    for extent in _decoded(pieces):
        if extent.start != at or extent.length <= 0:
            raise ExtentsWrong(f"an extent of {extent.length} bytes at {extent.start} follows what ends at {at}")
        at += extent.length
        if last is not None and last[2:] == extent[2:]:
            last = last._replace(length=last.length + extent.length)
            continue
        if last is not None:
            yield last
        last = extent
    if last is not None:
        yield last


def _decoded(pieces: Iterable[bytes | memoryview]) -> Iterator[Extent]:
    decode = msgspec.json.Decoder(list[_Listed]).decode
    try:
        for batch in _batches(pieces):
            for one in decode(batch):
                yield Extent(one.start, one.length, one.zero, one.hole, one.dirty)
    except msgspec.DecodeError as error:
        raise ExtentsWrong(f"a listing that is no list of extents: {error}") from error


def _batches(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """JSON arrays of whole objects, as many as have arrived.

    An extent has no object within, so one ends at every brace. What stands between is dropped when it is what should
    stand there.
    """
    rest = b""
    array = False
    for piece in pieces:
        text = rest + bytes(piece)
        end = text.rfind(b"}") + 1
        rest = text[end:]
        if not end:
            if len(rest) > MOST_EXTENT_BYTES:
                raise ExtentsWrong("an extent without end")
            continue
        body = text[:end].lstrip(b" \t\r\n,")
        if body.startswith(b"[") and not array:
            body = body[1:]
            array = True
        yield b"[" + body.replace(b"}\n{", b"},{") + b"]"
    closing = rest.strip()
    if closing != (b"]" if array else b"") and closing != b"[]":
        raise ExtentsWrong(f"a listing that breaks off with {closing[-40:]!r}")
