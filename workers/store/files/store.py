"""Library images as files in directories: how they come, how they go, and what is removed after a crash.

.IMAGE.mover-part ──fsync, record──► link, never over another ──► IMAGE
      │                                                             │ record: published, until it is registered
      └── record: offset, for an upload that is to go on            └── confirm() or remove()
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator

from config.log import facts
from config.store_settings import FileStore
from config.stores import IMAGE_NAME, directories, path_of, uri_of
from config.volumes import volume_of
from workers.lane.store_format import Swept, Unconfirmed, Why
from workers.store.backing import Location, Refusal
from workers.store.files import mountpoints, records
from workers.store.files.part import FilePart
from workers.store.files.records import Record

log = logging.getLogger(__name__)

# As many names as an answer has room for; the next sweep finds the others.
UNCONFIRMED_MOST = 64


class FileBacking:
    """The directories of one store."""

    def __init__(self, store: FileStore) -> None:
        self._store = store
        self._directories = directories(store)

    # -- uploads ---------------------------------------------------------------------------------------------

    def begin(self, image: str, size: int | None, catalogue: str, upload: str = "") -> FilePart:
        """An empty part in the directory that has room for it."""
        self._check_writable()
        _check_name(image)
        for path in self._present():
            _clear(path, image, catalogue)
        directory = self._choose(size)
        try:
            fd = records.lock(records.part_path(directory, image), os.O_CREAT)
        except BlockingIOError:
            raise _busy(image) from None
        part = FilePart(self._store, directory, image, fd, catalogue)
        os.ftruncate(fd, 0)
        return part

    def resume(self, image: str, offset: int, size: int | None) -> FilePart:
        """The part, cut to what is durable of it."""
        self._check_writable()
        _check_name(image)
        for path in self._present():
            record = records.read(path, image)
            if record is None or not record.offset:
                continue
            try:
                fd = records.lock(records.part_path(path, image))
            except FileNotFoundError:
                continue
            except BlockingIOError:
                raise _busy(image) from None
            try:
                _check_resumable(image, record, offset, size)
                part = FilePart(self._store, path, image, fd, record.catalogue)
                os.ftruncate(fd, offset)
            except BaseException:
                os.close(fd)
                raise
            return part
        raise Refusal(Why.WRONG_OFFSET, f"nothing is kept of an upload of image {image}: begin at 0", 0)

    def prepare(self, image: str, size: int, catalogue: str) -> str:
        """A file of holes. Of so many bytes few may be data: any directory is large enough that has room at all."""
        part = self.begin(image, None, catalogue)
        try:
            part.prepare(size)
        except BaseException:
            part.drop()
            raise
        part.close()
        return part.path

    def take(self, image: str, catalogue: str) -> FilePart | Location:
        """The part, locked; or where it was published by who then died. Raises Refusal if there is neither."""
        _check_name(image)
        for path in self._present():
            record = records.read(path, image)
            if record is None or record.catalogue != catalogue:
                continue
            target = os.path.join(path, image)
            if record.published is not None and record.published == records.identity(target):
                return Location(uri_of(target), mountpoints.metadata(self._store.metadata_file, target))
            if not record.scattered:
                continue
            try:
                fd = _locked_part(path, image)
            except Refusal:  # who asked before has died, and a thread still does it
                raise Refusal(Why.GONE, f"image {image} is being published: ask again") from None
            if fd is not None:
                return FilePart(self._store, path, image, fd, catalogue)
        raise Refusal(Why.NOT_THERE, f"there is nothing of image {image} in store {self._store.id}")

    def kept(self, image: str) -> int | None:
        """What the record says of a part that is there."""
        _check_name(image)
        for path in self._present():
            record = records.read(path, image)
            if record is not None and record.offset and os.path.lexists(records.part_path(path, image)):
                return record.offset
        return None

    def forget(self, image: str) -> None:
        """Remove the part and its record, unless somebody writes it."""
        _check_name(image)
        for path in self._present():
            _forget(path, image)

    def _check_writable(self) -> None:
        if self._store.read_only:
            raise Refusal(Why.ADD_DISABLED, f"store {self._store.id} takes no new images")

    def _present(self) -> list[str]:
        """The directories that are there. Raises Refusal if none is."""
        found = [one.path for one in self._directories if os.path.isdir(one.path)]
        if not found:
            raise Refusal(Why.GONE, f"no directory of store {self._store.id} is there")
        return found

    def _choose(self, size: int | None) -> str:
        """The first priority that has a directory with room, and of its directories the freest."""
        best, rooms, denied = None, [], False
        for path, priority in self._directories:
            try:
                found = os.statvfs(path)
            except OSError as error:
                log.warning("a directory is left out", extra=facts(path=path, reason=error.strerror))
                continue
            if not os.access(path, os.W_OK | os.X_OK):
                denied = True
                continue
            room = found.f_bavail * found.f_frsize
            rooms.append(room)
            if room >= (size or 0) and (best is None or (priority, room) > best[:2]):
                best = (priority, room, path)
        if best is not None:
            return best[2]
        if rooms:
            raise Refusal(Why.FULL, f"store {self._store.id} has {max(rooms)} bytes left, the image has {size}")
        why = Why.DENIED if denied else Why.GONE
        raise Refusal(why, f"no directory of store {self._store.id} can be written")

    # -- images ----------------------------------------------------------------------------------------------

    def remove(self, uri: str) -> None:
        """Unlink it; who reads it reads on."""
        path = path_of(self._store, uri)
        if path is None:
            raise Refusal(Why.NOT_THERE, f"{uri} is no location of store {self._store.id}")
        if self._store.read_only:
            raise Refusal(Why.DENIED, f"store {self._store.id} removes no images")
        directory, image = os.path.split(path)
        os.stat(directory)  # a store that is gone has not removed anything
        if records.unlink(path):
            records.sync_directory(directory)
        _forget(directory, image)

    def abandon(self, uri: str) -> None:
        """It was published: what is not goes with the sweep itself."""
        self.remove(uri)

    def size(self, uri: str) -> int | None:
        """The file's size. Raises OSError where its directory is gone."""
        path = path_of(self._store, uri)
        if path is None:
            return None
        os.stat(os.path.dirname(path))
        try:
            return os.lstat(path).st_size
        except FileNotFoundError:
            return None

    def confirm(self, image: str, uri: str) -> None:
        """Remove the records of what was published."""
        _check_name(image)
        for path in self._present():
            record = records.read(path, image)
            if record is not None and record.published:
                records.remove(path, image)

    def sweep(self, keep_s: float, catalogue: str) -> Swept:
        """Look at each part and record; those of uploads under way are locked."""
        removed, unconfirmed = 0, list[Unconfirmed]()
        for path in self._present():
            for image in sorted({image for name in os.listdir(path) if (image := records.image_of(name))}):
                removed += _sweep(path, image, keep_s)
                if len(unconfirmed) < UNCONFIRMED_MOST:
                    unconfirmed += _unconfirmed(path, image, catalogue)
        return Swept(removed, unconfirmed)


# -- one image in one directory ------------------------------------------------------------------------------


def _check_name(image: str) -> None:
    if not IMAGE_NAME.fullmatch(image):
        raise Refusal(Why.NOT_THERE, f"{image[:80]!r} can be no image's id")


def _busy(image: str) -> Refusal:
    return Refusal(Why.BUSY, f"another upload of image {image} is under way")


def _check_resumable(image: str, record: Record, offset: int, size: int | None) -> None:
    if record.offset != offset:
        message = f"the upload of image {image} goes on at {record.offset}, not at {offset}"
        raise Refusal(Why.WRONG_OFFSET, message, record.offset)
    if None not in (record.size, size) and record.size != size:
        raise Refusal(Why.WRONG_SIZE, f"the upload of image {image} began with {record.size} bytes, not {size}")


def _clear(directory: str, image: str, catalogue: str) -> None:
    """Remove what an earlier upload has left; a file that none is known to have left is refused."""
    target = os.path.join(directory, image)
    fd = _locked_part(directory, image)
    try:
        published = records.identity(target)
        if published is not None:
            record = records.read(directory, image)
            if record is None or (record.published, record.catalogue) != (published, catalogue):
                raise Refusal(Why.DUPLICATE, f"there is data of image {image} in the store already")
            records.unlink(target)  # it was never registered, or nobody would send it again
        records.unlink(records.part_path(directory, image))
        records.remove(directory, image)
    finally:
        if fd is not None:
            os.close(fd)


def _locked_part(directory: str, image: str) -> int | None:
    """The descriptor of the part, locked; None if there is none. Raises Refusal if somebody has it."""
    try:
        return records.lock(records.part_path(directory, image))
    except FileNotFoundError:
        return None
    except BlockingIOError:
        raise _busy(image) from None


def _forget(directory: str, image: str) -> None:
    try:
        fd = _locked_part(directory, image)
    except Refusal:
        return  # an upload is under way: it ends by itself
    records.unlink(records.part_path(directory, image))
    records.remove(directory, image)
    if fd is not None:
        os.close(fd)


def _sweep(directory: str, image: str, keep_s: float) -> int:
    """How many files went."""
    try:
        fd = _locked_part(directory, image)
    except (Refusal, OSError):
        return 0
    try:
        return sum(map(records.unlink, _left(directory, image, fd, keep_s)))
    finally:
        if fd is not None:
            os.close(fd)


def _left(directory: str, image: str, fd: int | None, keep_s: float) -> Iterator[str]:
    """The files that nobody can use any more."""
    record = records.read(directory, image)
    path = records.record_path(directory, image)
    yield path + records.UNFINISHED
    if record is not None and record.published and record.published == records.identity(os.path.join(directory, image)):
        yield records.part_path(directory, image)  # the other name of the same file
    elif record is not None and record.scattered and fd is not None:
        return  # the catalogue is asked
    elif record is None or fd is None or not record.offset or time.time() - os.fstat(fd).st_mtime > keep_s:
        yield records.part_path(directory, image)
        yield path


def _unconfirmed(directory: str, image: str, catalogue: str) -> list[Unconfirmed]:
    record = records.read(directory, image)
    target = os.path.join(directory, image)
    if record is None or record.catalogue != catalogue:
        return []
    age_s = max(0.0, time.time() - os.stat(records.record_path(directory, image)).st_mtime)
    if record.scattered and record.published is None:
        return [Unconfirmed(image, uri_of(records.part_path(directory, image)), age_s, scattered=True)]
    if record.published is None or record.published != records.identity(target):
        return []
    return [Unconfirmed(image, uri_of(target), age_s, volume_of(directory))]
