"""The framing of a chunked body (RFC 9112, 7.1): what is data and what is not. Rules, no I/O.

    1F4\r\n ── 500 bytes ── \r\n 0\r\n [trailer: x\r\n] \r\n
    SIZE       DATA         GAP  SIZE  TRAILER          END

As strict as the heads are read: what a proxy before us may have read otherwise is no body.
"""

from __future__ import annotations

import re
from enum import Enum, auto

LINE_BYTES = 1024
TRAILER_BYTES = 8192
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\0]*)?")
_TRAILER = re.compile(rb"[^\r\n\0: \t]+:[^\r\n\0]*")


class Part(Enum):
    """What comes next."""

    SIZE = auto()
    DATA = auto()
    GAP = auto()
    TRAILER = auto()
    END = auto()


class NotChunked(Exception):
    """The client sent what is no chunked body."""


class Chunks:
    """`part` is what comes next; `left` bytes of data when that is DATA."""

    def __init__(self) -> None:
        self.part = Part.SIZE
        self.left = 0
        self._line = bytearray()
        self._trailer_bytes = 0

    def took(self, count: int) -> None:
        """So much of the data was taken."""
        self.left -= count
        if not self.left:
            self.part = Part.GAP

    def read_line(self, view: memoryview) -> int:
        """Read what is not data from `view`, up to the end of the line; how much that was. Raises NotChunked."""
        data = bytes(view[: LINE_BYTES - len(self._line)])
        end = data.find(b"\n") + 1
        self._line += data[:end] if end else data
        if end:
            line, self._line = bytes(self._line), bytearray()
            if not line.endswith(b"\r\n"):
                raise NotChunked("a line of the chunked body ends with a bare LF")
            self._on_line(line[:-2])
        elif len(self._line) >= LINE_BYTES:
            raise NotChunked(f"a line of the chunked body has more than {LINE_BYTES} bytes")
        return end or len(data)

    def _on_line(self, line: bytes) -> None:
        if self.part is Part.GAP and not line:
            self.part = Part.SIZE
        elif self.part is Part.SIZE and (match := _SIZE.fullmatch(line)):
            self.left = int(match[1], 16)
            self.part = Part.DATA if self.left else Part.TRAILER
        elif self.part is Part.TRAILER and not line:
            self.part = Part.END
        elif self.part is Part.TRAILER and _TRAILER.fullmatch(line) and self._trailer_bytes + len(line) < TRAILER_BYTES:
            self._trailer_bytes += len(line)
        else:
            raise NotChunked("the body's chunks cannot be read")
