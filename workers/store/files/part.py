"""A library image that is being written, as a file beside its later name: .IMAGE.mover-part.

Nobody sees it before it is published; what may be gone on with is told by its record (records.py).
"""

from __future__ import annotations

import os

from config.store_settings import FileStore
from config.stores import uri_of
from config.volumes import volume_of
from workers.image.file_export import open_own, read_all
from workers.lane.store_format import Why
from workers.store.backing import Location, Refusal
from workers.store.files import mountpoints, records
from workers.store.files.cloning import clone_step
from workers.store.files.links import link_new
from workers.store.files.records import Record
from workers.store.files.thin import write_plain, write_thin


class FilePart:
    """A file that nobody sees yet, locked by its descriptor."""

    rereads = True

    def __init__(self, store: FileStore, directory: str, image: str, fd: int, catalogue: str) -> None:
        self._store = store
        self._directory = directory
        self._image = image
        self._fd = fd
        self._catalogue = catalogue
        self._target = os.path.join(directory, image)
        self._published = False
        self._metadata = mountpoints.metadata(store.metadata_file, self._target)

    def write(self, buffer: memoryview, offset: int) -> None:
        """Put bytes in their place; runs of zeros become holes in a thin store."""
        if self._store.thin:
            write_thin(self._fd, buffer, offset, self._store.chunk_bytes)
        else:
            write_plain(self._fd, buffer, offset)

    def zero(self, offset: int, length: int) -> None:
        """Nothing is written yet where zeros come, so they are a hole already; a store that is not thin has none."""
        if not self._store.thin:
            os.posix_fallocate(self._fd, offset, length)  # space reads as zeros before it is written to

    def read(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with bytes that were written before; in a thin store, zeros at the end are not there yet."""
        size = os.fstat(self._fd).st_size if self._store.thin else offset + len(buffer)
        there = min(max(size - offset, 0), len(buffer))
        read_all(self._fd, buffer[:there], offset)
        buffer[there:] = bytes(len(buffer) - there)

    def clone(self, path: str, offset: int, size: int, most: int) -> int:
        """Bring `most` of the image's bytes from another file of `size` bytes; where that ended."""
        fd, _ = open_own(path, frozen=True)
        try:
            found = os.lseek(fd, 0, os.SEEK_END)
            if found != size:
                raise Refusal(Why.NOT_THERE, f"the store has {found} bytes where the image's {size} were")
            return clone_step(fd, self._fd, offset, size, most, self.write, self.zero)
        finally:
            os.close(fd)

    def fileno(self) -> int:
        """The file's descriptor."""
        return self._fd

    def prepare(self, size: int) -> None:
        """Have it written at random by others, until it is taken."""
        os.ftruncate(self._fd, size)
        records.write(self._directory, self._image, Record(0, size, self._catalogue, scattered=True))

    @property
    def path(self) -> str:
        """The file's."""
        return records.part_path(self._directory, self._image)

    def keep(self, offset: int, size: int | None) -> None:
        """The bytes first, then the record that speaks of them."""
        if os.fstat(self._fd).st_size < offset:
            os.ftruncate(self._fd, offset)  # it ended with a hole
        os.fdatasync(self._fd)
        records.write(self._directory, self._image, Record(offset, size, self._catalogue))

    def publish(self, size: int) -> Location:
        """Durable first, then seen: after a crash it is there as a whole, or not at all."""
        os.ftruncate(self._fd, size)
        mode = int(self._store.file_mode, 8)
        os.fchmod(self._fd, mode or 0o666 & ~_umask())
        os.fsync(self._fd)
        part = records.part_path(self._directory, self._image)
        published = Record(catalogue=self._catalogue, published=records.identity(part))
        records.write(self._directory, self._image, published)
        try:
            link_new(part, self._target)
        except FileExistsError:
            raise Refusal(Why.DUPLICATE, f"there is data of image {self._image} in the store already") from None
        self._published = True
        records.unlink(part)
        records.sync_directory(self._directory)
        return Location(uri_of(self._target), self._metadata, volume_of(self._directory))

    def close(self) -> None:
        """Unlock it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def drop(self) -> None:
        """Remove it, also when everybody can see it already, and unlock what is no more."""
        if self._published:
            records.unlink(self._target)
        records.unlink(records.part_path(self._directory, self._image))
        records.remove(self._directory, self._image)
        self.close()


def _umask() -> int:
    """Linux 4.7 and later say it without setting it, which all threads would feel."""
    with open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    return 0o022
