"""The file beside a download's target that holds what has come so far."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from mover.client.errors import LocalError

# A job that was told to end may be at its last sync.
LOCK_S = 20.0
LOCK_POLL_S = 0.05


class Part:
    """The file beside the target that holds what has come so far, locked by the job that fills it."""

    def __init__(self, path: Path) -> None:
        self.final = path.resolve()
        self.path = self.final.with_name(f".{self.final.name}.mover-part")
        self.journal = self.final.with_name(f".{self.final.name}.mover-journal")
        self.fd = -1
        self.was_there = False

    def lock(self) -> None:
        """Open it for this job alone; waits a little for one that is ending. Raises LocalError."""
        deadline = time.monotonic() + LOCK_S
        while not self._locked():
            if time.monotonic() > deadline:
                advice = "wait until it has ended, or use another name"
                raise LocalError(self.final, "writing", "another job writes it", advice)
            time.sleep(LOCK_POLL_S)

    def _locked(self) -> bool:
        try:
            self.was_there = self.path.exists()
            self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise LocalError.from_os(self.path, "making", error, "check the directory, or name another one") from error
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it may have given it its name, or removed it: what is locked then is another file.
            if os.path.samestat(os.fstat(self.fd), self.path.stat()):
                return True
        except (BlockingIOError, FileNotFoundError):
            pass
        self.close()
        return False

    def make(self, length: int, resume: bool) -> None:
        """A file of holes of this length, or what was left of one. Raises LocalError."""
        try:
            if not resume:
                os.ftruncate(self.fd, 0)
            os.ftruncate(self.fd, length)
        except OSError as error:
            raise LocalError.from_os(self.path, f"making {length} bytes of", error) from error

    def commit(self) -> None:
        """Make it durable and give it its name. Raises LocalError."""
        try:
            os.fsync(self.fd)
            self.path.replace(self.final)
            directory = os.open(self.final.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise LocalError.from_os(self.final, "completing", error) from error

    def close(self, *, remove: bool = False) -> None:
        """Let go of it."""
        if remove:
            with contextlib.suppress(OSError):
                self.path.unlink()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
