"""Where a path leads, and opening what stands there and nothing else, whatever links are swapped meanwhile."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator

import msgspec

from config.errors import shown

# As many as the kernel follows (path_resolution(7)).
LINKS_MOST = 40


class NotAllowed(Exception):
    """A ticket names `what`, which the setting `key` does not allow, for the reason `why`."""

    def __init__(self, what: str, key: str, why: str) -> None:
        super().__init__(f"{what} is not allowed by {key}: {why}")
        self.what = what
        self.key = key
        self.why = why


class Roots(msgspec.Struct, frozen=True):
    """Directories, or single paths, that tickets may name: of files, of NBD servers' sockets, of TLS credentials.

    `private` are Mover's own directories, which no list opens; nor those of `stores`: who could name a library image as
    a disk would write to what never changes. A path is judged by where its links lead.
    """

    files: tuple[str, ...] = ()
    nbd_sockets: tuple[str, ...] = ()
    tls_files: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    stores: tuple[str, ...] = ()

    def file(self, path: str) -> str:
        """Where a file's path leads. Raises NotAllowed. Like the others, it may block on a file system."""
        return self._place("file", path, "files")

    def socket(self, path: str) -> str:
        """Where the path of an NBD server's socket leads. Raises NotAllowed."""
        return self._place("NBD socket", path, "nbd_sockets")

    def credentials(self, path: str) -> str:
        """Where the path of TLS credentials leads. Raises NotAllowed."""
        return self._place("TLS file", path, "tls_files")

    def _place(self, kind: str, path: str, name: str) -> str:
        roots = getattr(self, name)
        try:
            place = os.path.realpath(path)
        except OSError as error:
            raise NotAllowed(f"{kind} {shown(path)}", f"allow.{name}", f"its links: {error.strerror}") from error
        what = f"{kind} {shown(path)}" + ("" if place == path else f", which leads to {shown(place)},")
        if any(beneath(place, os.path.realpath(own)) for own in self.private):
            raise NotAllowed(what, f"allow.{name}", "Mover's own state is never served")
        if any(beneath(place, os.path.realpath(store)) for store in self.stores):
            raise NotAllowed(what, f"allow.{name}", "it lies in a store of library images: name the image")
        if not any(beneath(place, os.path.realpath(root)) for root in roots) and not _is_device_of(path, place, roots):
            listed = ", ".join(roots)
            raise NotAllowed(what, f"allow.{name}", f"it is not beneath {listed}" if listed else "that is empty")
        return place


def beneath(path: str, root: str) -> bool:
    """Whether a path is `root` or stands beneath it; both have no links left."""
    return path == root or path.startswith(root.rstrip("/") + "/")


def _is_device_of(path: str, place: str, roots: Iterable[str]) -> bool:
    """A volume group's directory in /dev holds links that udev makes, to /dev/dm-N: whoever allows it means these.

    Only links that root alone can make: /dev/shm is everybody's.
    """
    groups = [root for root in map(os.path.realpath, roots) if beneath(root, "/dev")]
    if not groups or not beneath(place, "/dev") or not _is_block_device(place):
        return False
    return any(beneath(step, root) and _is_roots(os.path.dirname(step)) for step in _steps(path) for root in groups)


def _is_block_device(place: str) -> bool:
    try:
        return stat.S_ISBLK(os.lstat(place).st_mode)
    except OSError:
        return False


def _is_roots(directory: str) -> bool:
    """Whether nobody but root can make links in a directory."""
    try:
        found = os.lstat(directory)
    except OSError:
        return False
    return found.st_uid == 0 and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _steps(path: str) -> Iterator[str]:
    """The paths, each in a directory without links, that following the last component goes through."""
    for _ in range(LINKS_MOST):
        directory, name = os.path.split(path)
        step = os.path.join(os.path.realpath(directory), name)
        yield step
        try:
            path = os.path.join(os.path.dirname(step), os.readlink(step))
        except OSError:
            return


# -- opening -------------------------------------------------------------------------------------------------


def pin(place: str) -> int:
    """A descriptor (O_PATH) of what stands at a path without links. Raises OSError: ESTALE if it is elsewhere now.

    A device or a FIFO is not opened by this: open `handle` of it, when it is seen to be what is wanted.
    """
    fd = os.open(place, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    if stat.S_ISLNK(os.fstat(fd).st_mode) or os.readlink(handle(fd)) != place:
        os.close(fd)
        raise OSError(errno.ESTALE, "a link in its path was changed")
    return fd


def handle(fd: int) -> str:
    """A path to what a pinned descriptor is of, wherever that has been moved since."""
    return f"/proc/self/fd/{fd}"
