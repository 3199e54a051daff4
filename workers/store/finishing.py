"""The end of an image that was written at random: read once for its digests, inspected, published. In a thread."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from config.stores import SCHEMES
from workers.image.file_export import read_all
from workers.lane.store_format import Finish, Publish, Published, Why
from workers.store.backing import Location, Part, Refusal, Scattering
from workers.store.inspection.claims import Declared, inspect
from workers.store.publishing import publish

READ_BYTES = 1024 * 1024
ZEROS = memoryview(bytes(READ_BYTES))


def finish(backing: Scattering, asked: Finish) -> Published:
    """Publish what was prepared; nothing is left of it if that is refused. Raises Refusal and OSError."""
    taken = backing.take(asked.image, asked.catalogue)
    if isinstance(taken, Location):
        return _published_before(taken, asked)
    try:
        published = _finish(taken, asked)
    except BaseException:
        taken.drop()
        raise
    taken.close()
    return published


def _finish(part: Part, asked: Finish) -> Published:
    fd = part.fileno()
    assert fd is not None
    size = os.fstat(fd).st_size
    if size != asked.size:
        raise Refusal(Why.WRONG_SIZE, f"the image has {size} bytes, {asked.size} were announced")
    declared = Declared(asked.disk_format, asked.container_format, asked.backing_files)
    inspect(part, size, declared)  # before an hour of hashing
    md5, value = digests(fd, size, ("md5", asked.hash_algo))
    question = Publish(0, size, None, asked.disk_format, asked.container_format, asked.backing_files)
    return publish(part, question, size, md5, value)


def _published_before(location: Location, asked: Finish) -> Published:
    """Who published it died before anybody heard of it: only the answer is to be made again."""
    path = location.uri.removeprefix(f"{SCHEMES[0]}://")
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        declared = Declared(asked.disk_format, asked.container_format, asked.backing_files)
        virtual_size = inspect(_Seen(fd), size, declared)
        md5, value = digests(fd, size, ("md5", asked.hash_algo))
    finally:
        os.close(fd)
    return Published(location.uri, location.metadata, size, md5, value, virtual_size)


class _Seen:
    """A published image, for who inspects it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer`."""
        read_all(self._fd, buffer, offset)

    def fileno(self) -> int:
        """The file's descriptor."""
        return self._fd


def digests(fd: int, size: int, algorithms: tuple[str, ...]) -> list[str]:
    """The checksums of a file, each by a thread: hashlib lets others run. Holes are hashed and not read."""
    with ThreadPoolExecutor(len(algorithms), "digest") as threads:
        return list(threads.map(lambda algorithm: _digest(fd, size, algorithm), algorithms))


def _digest(fd: int, size: int, algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    buffer = memoryview(bytearray(READ_BYTES))
    at = 0
    while at < size:
        data = min(_next(fd, at, os.SEEK_DATA, size), size)
        _zeros(digest, data - at)
        hole = min(_next(fd, data, os.SEEK_HOLE, size), size) if data < size else size
        for offset in range(data, hole, READ_BYTES):
            piece = buffer[: hole - offset]
            read_all(fd, piece, offset)
            digest.update(piece)
        at = hole
    return digest.hexdigest()


def _zeros(digest: Any, length: int) -> None:
    while length > 0:
        digest.update(ZEROS[:length])
        length -= READ_BYTES


def _next(fd: int, at: int, whence: int, size: int) -> int:
    try:
        return os.lseek(fd, at, whence)
    except OSError:
        return size  # no more data
