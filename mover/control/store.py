"""Transfers on disk: a file of JSON for each, in the state directory, so that they survive a restart.

A file is written beside its place, synced and renamed into it: after a crash it is there whole, or not at all. Its
modification time is the time of the transfer's last use. It is named by a hash, since an id may be as long as a name
can be.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256

import msgspec

from config.export import Export
from config.log import facts
from mover.serve.errors import CannotStart

log = logging.getLogger(__name__)

UNFINISHED = ".new"


class Transfer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A transfer that was registered; it ends after `idle_s` seconds without a request."""

    id: str
    export: Export
    idle_s: int


class TransferStore:
    """The transfers' files. All methods may block; they raise OSError when the disk does not do its part."""

    def __init__(self, directory: str) -> None:
        """Make the directory, mode 0700, and hold it alone. Raises CannotStart."""
        self._directory = directory
        what = f"keep transfers in {directory}"
        try:
            os.makedirs(directory, 0o700, exist_ok=True)
            self._fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise CannotStart(what, str(error.strerror).lower(), "give another --state-dir or mend it") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._fd)
            raise CannotStart(what, "another Mover keeps its own there", "give another --state-dir") from error

    def load(self) -> Iterator[tuple[Transfer, float]]:
        """All that were saved, and how many seconds ago each was used last."""
        for name in sorted(os.listdir(self._fd)):
            if name.endswith(UNFINISHED):
                os.unlink(name, dir_fd=self._fd)
                continue
            try:
                with open(self._path(name), "rb") as file:
                    age_s = max(0.0, time.time() - os.fstat(file.fileno()).st_mtime)
                    yield msgspec.json.decode(file.read(), type=Transfer), age_s
            except msgspec.MsgspecError as error:
                log.error("a kept transfer is no use", extra=facts(file=name, why=error))

    def save(self, transfer: Transfer) -> None:
        """Keep a transfer, in place of an older one of its id; used just now. It is on disk when this returns."""
        name = _name(transfer.id)
        unfinished = self._path(name + UNFINISHED)
        with open(unfinished, "wb") as file:
            file.write(msgspec.json.encode(transfer))
            file.flush()
            os.fsync(file.fileno())
        os.rename(unfinished, self._path(name))
        os.fsync(self._fd)

    def forget(self, transfer_id: str) -> None:
        """Keep a transfer no more; it is off the disk when this returns."""
        try:
            os.unlink(self._path(_name(transfer_id)))
        except FileNotFoundError:
            return
        os.fsync(self._fd)

    def used(self, ages_s: Sequence[tuple[str, float]]) -> None:
        """Note that the transfers of these ids were used so many seconds ago."""
        now_s = time.time()
        for transfer_id, age_s in ages_s:
            os.utime(self._path(_name(transfer_id)), (now_s - age_s, now_s - age_s))

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)


def _name(transfer_id: str) -> str:
    return sha256(transfer_id.encode()).hexdigest() + ".json"
