"""What a job has done, kept beside it, so that a job that was killed can go on.

What stands in it is durable where it should be: the file was synced, or the server has said that it is flushed, before
the journal was written. It is replaced as a whole, so there is always one that can be read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

import msgspec

from mover.client.errors import ChangedError, LocalError
from mover.client.ranges import Range

# 2: of a qcow2 file, the part has data where mover.client.qcow2 puts it, and no tables.
VERSION = 2


class Begun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a job is of. One that differs in anything but `url` and `done` is another job.

    `url` is for whoever reads the file: another ticket of the same image has another one. `runs` is the fingerprint of
    where the source's data is; `source` of a local source is its device, inode, length and time of change.
    """

    job: str
    url: str
    size: int
    image_format: str
    runs: str
    source: list[int] | None = None
    done: list[Range] = []
    version: int = VERSION


class Journal:
    """The file of one job."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> Begun | None:
        """What was begun; None if there is no file. Raises ChangedError for what is no journal of this version."""
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LocalError.from_os(self.path, "reading", error) from error
        try:
            begun = msgspec.json.decode(text, type=Begun)
        except msgspec.DecodeError as error:
            raise ChangedError(self.path, f"it is no journal of this version: {error}") from error
        if begun.version != VERSION:
            raise ChangedError(self.path, f"it has version {begun.version}, not {VERSION}")
        return begun

    def resume(self, job: Begun) -> Begun | None:
        """What was begun of this very job; None if nothing was. Raises ChangedError if it was another one."""
        begun = self.load()
        if begun is None:
            return None
        for field, what in _WHAT.items():
            old, new = getattr(begun, field), getattr(job, field)
            if old != new:
                raise ChangedError(self.path, f"{what} was {_short(old)} then, and is {_short(new)} now")
        return begun

    def save(self, job: Begun) -> None:
        """Write it. Raises LocalError."""
        beside = self.path.with_name(self.path.name + ".new")
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(job))
                file.flush()
                os.fdatasync(file.fileno())
            beside.replace(self.path)
        except OSError as error:
            raise LocalError.from_os(self.path, "writing", error) from error

    def remove(self) -> None:
        """The job is done, or is not to go on."""
        for path in (self.path, self.path.with_name(self.path.name + ".new")):
            with contextlib.suppress(OSError):
                path.unlink()


_WHAT = {
    "job": "the job",
    "size": "the size",
    "image_format": "the format",
    "source": "the file (device, inode, length, time)",
    "runs": "the fingerprint of where data is",
}


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:16] + "…"


def state_journal(name: str) -> Path:
    """Where the journal of a job is that has no file to stand beside: under the state directory of this user."""
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    root = Path("/var/lib/mover") if os.geteuid() == 0 and "XDG_STATE_HOME" not in os.environ else base / "mover"
    directory = root / "jobs"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise LocalError.from_os(directory, "making", error) from error
    return directory / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.journal"
