"""What stands beside an image that is not registered yet: how much of it is durable, or which file it became.

    .IMAGE.mover-part      the bytes; whoever writes them has the file locked (flock)
    .IMAGE.mover-record    {"offset": …} of a part, {"scattered": true, "size": …} of one that is written at random,
                           {"published": [inode, mtime]} from just before an image is seen

A record is replaced as a whole, so that after a crash it is the one of before or the one of after. All that is done to
an image's files is done while its part is locked, or, where it has none, by who has just made one.
"""

from __future__ import annotations

import fcntl
import os

import msgspec

from config.stores import PART, part_of

RECORD = ".mover-record"
UNFINISHED = ".new"


class Record(msgspec.Struct, frozen=True):
    """`published` is the inode number and the modification time, in ns, of the file that the part became.

    `scattered`: of `size` bytes, any may be there, and whether it is still wanted the catalogue knows. `catalogue` is
    the registry that was to know it.
    """

    offset: int = 0
    size: int | None = None
    catalogue: str = ""
    scattered: bool = False
    published: tuple[int, int] | None = None


def part_path(directory: str, image: str) -> str:
    """Where its bytes are until they are published."""
    return part_of(os.path.join(directory, image))


def record_path(directory: str, image: str) -> str:
    """Where its record is."""
    return os.path.join(directory, f".{image}{RECORD}")


def image_of(name: str) -> str | None:
    """The image whose part or record this file is, None if it is another's."""
    for ending in (PART, RECORD, RECORD + UNFINISHED):
        if name.startswith(".") and name.endswith(ending):
            return name[1 : -len(ending)]
    return None


def read(directory: str, image: str) -> Record | None:
    """The record, if there is one that can be read."""
    try:
        with open(record_path(directory, image), "rb") as file:
            return msgspec.json.decode(file.read(4096), type=Record)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def write(directory: str, image: str, record: Record) -> None:
    """Replace the record; it is durable when this returns."""
    path = record_path(directory, image)
    with open(path + UNFINISHED, "wb") as file:
        file.write(msgspec.json.encode(record))
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + UNFINISHED, path)
    sync_directory(directory)


def remove(directory: str, image: str) -> None:
    """There is to be no record."""
    for path in (record_path(directory, image) + UNFINISHED, record_path(directory, image)):
        unlink(path)


def sync_directory(path: str) -> None:
    """Make names durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def unlink(path: str) -> bool:
    """Remove a file; whether there was one."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def identity(path: str) -> tuple[int, int] | None:
    """What Record.published says of a file; None if there is none."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def lock(path: str, flags: int = 0) -> int:
    """Open a part and lock it; the descriptor. Raises FileNotFoundError, or BlockingIOError if somebody has it.

    With O_CREAT it is made, mode 0600, if it is not there.
    """
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            here = os.fstat(fd)
            try:
                there = os.lstat(path)
            except FileNotFoundError:
                there = None
        except OSError:
            os.close(fd)
            raise
        if there is not None and (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
            return fd
        os.close(fd)  # somebody removed it before we had it
