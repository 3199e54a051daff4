"""All connections of the host, counted by front end and by client, in memory that all front ends share.

    secret | row of front end 1 | row of front end 2 | …       a row: connections + 1, then a count for each bucket

Each front end writes its own row only, a store at a time, and reads the others': so there is no lock, and one that is
killed at any instruction leaves no half of anything. The supervisor clears the row of one that has died. A client's
bucket is a keyed hash of its address: two of them share one, and so their limit, with a chance of 1 in 16,384.
"""

from __future__ import annotations

import mmap
import os
import socket
from enum import Enum, auto
from hashlib import blake2b

_SECRET_BYTES = 64
_BUCKETS = 16384
_COUNT_BYTES = 4
_ROW = 1 + _BUCKETS
_ROW_BYTES = _ROW * _COUNT_BYTES
# Half of an IPv6 address is the client's to choose.
_IPV6_NETWORK_BYTES = 8
# "::ffff:0:0/96": an IPv4 client of a listener on "::".
_MAPPED = bytes(10) + b"\xff\xff"


class Verdict(Enum):
    """What a new connection meets."""

    WELCOME = auto()
    HOST_FULL = auto()
    CLIENT_FULL = auto()


def make(front_ends: int) -> int:
    """The memory of so many front ends, as a memfd."""
    fd = os.memfd_create("mover-crowd", os.MFD_CLOEXEC)
    os.ftruncate(fd, _SECRET_BYTES + front_ends * _ROW_BYTES)
    os.pwrite(fd, os.urandom(_SECRET_BYTES), 0)
    return fd


def clear(fd: int, front_end: int) -> None:
    """Front end `front_end`, counted from 1, is dead: its connections are gone with it."""
    os.pwrite(fd, bytes(_ROW_BYTES), _SECRET_BYTES + (front_end - 1) * _ROW_BYTES)


class Crowd:
    """The connections as one front end sees them."""

    def __init__(self, fd: int, front_end: int) -> None:
        """`fd` may be closed afterwards; `front_end` is counted from 1."""
        memory = mmap.mmap(fd, os.fstat(fd).st_size)
        self._secret = memory[:_SECRET_BYTES]
        self._counts = memoryview(memory)[_SECRET_BYTES:].cast("I")
        self._rows = range(0, len(self._counts), _ROW)
        self._own = (front_end - 1) * _ROW

    def open(self) -> None:
        """This front end accepts connections from now on."""
        self._counts[self._own] = 1

    def close(self) -> None:
        """This front end accepts no more: nobody leaves connections to it. Those it has do not count any more."""
        self._counts[self._own] = 0

    @property
    def lead(self) -> int:
        """How many connections this front end has more than the one with the fewest."""
        counts = [count for row in self._rows if (count := self._counts[row])]
        return self._counts[self._own] - min(counts) if counts else 0

    def enter(self, bucket: int | None, most: int, most_of_client: int) -> Verdict:
        """Count a new connection, unless the host or its client has as many as it may have.

        Front ends that count at the same moment see each other, so that the limit may be met early, never late.
        """
        self._add(bucket, 1)
        if sum(self._counts[row] - 1 for row in self._rows if self._counts[row]) > most:
            verdict = Verdict.HOST_FULL
        elif bucket is not None and sum(self._counts[row + 1 + bucket] for row in self._rows) > most_of_client:
            verdict = Verdict.CLIENT_FULL
        else:
            return Verdict.WELCOME
        self._add(bucket, -1)
        return verdict

    def leave(self, bucket: int | None) -> None:
        """A connection has ended."""
        self._add(bucket, -1)

    def _add(self, bucket: int | None, change: int) -> None:
        if self._counts[self._own]:
            self._counts[self._own] += change
        if bucket is not None:
            self._counts[self._own + 1 + bucket] += change

    def bucket(self, family: int, host: str) -> int:
        """Where a client's connections are counted: by its IPv4 address, or its IPv6 network of 64 bits."""
        packed = socket.inet_pton(family, host.partition("%")[0])
        if family == socket.AF_INET6:
            packed = packed[12:] if packed.startswith(_MAPPED) else packed[:_IPV6_NETWORK_BYTES]
        return int.from_bytes(blake2b(packed, digest_size=4, key=self._secret).digest(), "big") % _BUCKETS
