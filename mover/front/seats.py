"""Seats that all front ends share: each is one byte of one file, and who sits there has it locked.

The file is a memfd of the supervisor's; its bytes are the rates, and for seats only its locks count. They are of open
file descriptions (fcntl(2)), so each front end opens it anew, and a front end that dies leaves its seats by dying. To
take and leave a seat costs 2 microseconds, and asks no other process.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
from functools import lru_cache
from hashlib import blake2b

from mover.front.rates import RATES_BYTES, Rates

# As many as a setting may ask for.
MOST = 4096

# struct flock: kind, whence, start, length, pid.
_FLOCK = struct.Struct("hhqqi")
_REGION = 1 << 14
# Beyond all rows.
_RATES_TURN = (1 << 48) * _REGION
_BUSY = (errno.EAGAIN, errno.EACCES)


@lru_cache(1024)
def row_of(name: str) -> int:
    """The first byte of the rows that belong to `name`; two of 2 ** 48 names share them by chance."""
    return int.from_bytes(blake2b(name.encode(), digest_size=6).digest(), "big") * _REGION


class House:
    """All seats of a host, as one front end sees them."""

    def __init__(self, fd: int) -> None:
        """`fd` is the supervisor's memfd, which may be closed afterwards."""
        self._fd = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)

    def lock(self, seat: int) -> bool:
        """Take a seat that this front end does not hold; False if another one does."""
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, seat, 1, 0))
        except OSError as error:
            if error.errno in _BUSY:
                return False
            raise
        return True

    def unlock(self, seat: int) -> None:
        """Leave it."""
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, seat, 1, 0))

    def rates(self) -> Rates:
        """The rates that its bytes are."""
        return Rates(memoryview(mmap.mmap(self._fd, RATES_BYTES)).cast("q"), Turn(self._fd))

    def close(self) -> None:
        """Leave all seats."""
        os.close(self._fd)


class Turn:
    """`with`: no other front end is at the rates; waits for one that is, which takes microseconds."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._take = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _RATES_TURN, 1, 0)
        self._leave = _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, _RATES_TURN, 1, 0)

    def __enter__(self) -> None:
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLKW, self._take)

    def __exit__(self, *_: object) -> None:
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, self._leave)


class Row:
    """`count` seats from byte `first` of the house on, and those of them that this front end holds."""

    __slots__ = ("_first", "_house", "count", "held")

    def __init__(self, house: House, first: int, count: int) -> None:
        self._house = house
        self._first = first
        self.count = count
        self.held: set[int] = set()

    def take(self) -> int | None:
        """A free seat, or None. What is held here is not asked for: one's own lock never refuses."""
        if len(self.held) >= self.count:
            return None
        for number in range(self.count):
            seat = self._first + number
            if seat not in self.held and self._house.lock(seat):
                self.held.add(seat)
                return seat
        return None

    def leave(self, seat: int) -> None:
        """Give the seat back."""
        self.held.remove(seat)
        self._house.unlock(seat)
