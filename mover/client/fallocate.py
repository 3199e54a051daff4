"""fallocate(2) with the modes that Python does not offer."""

from __future__ import annotations

import ctypes
import os

# linux/falloc.h
KEEP_SIZE = 0x01
PUNCH_HOLE = 0x02 | KEEP_SIZE
ZERO_RANGE = 0x10 | KEEP_SIZE

_fallocate = ctypes.CDLL(None, use_errno=True).fallocate64
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_fallocate.restype = ctypes.c_int


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """Change the allocation of a range. Raises OSError; EOPNOTSUPP where the file system does not know the mode."""
    if _fallocate(fd, mode, offset, length):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
