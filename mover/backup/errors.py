"""What goes wrong with backups. Errors carry facts as attributes, and their text is made from them.

BackupError
├ RepositoryError   the repository cannot be used as it is, at `path`
├ BusyError         another run is at work on the disk, in process `pid`
├ ChangesUnknown    an incremental is not possible: what has changed since the parent is not known
├ NoSuchPoint       a point in time, or a disk, that the repository does not have
├ DifferentError    a point is not what the server has
└ DamagedError      bytes are not what the manifest says: `damages`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mover.client.errors import ClientError

# A disk that is damaged all over fills no screen.
SHOWN_DAMAGES = 3


class BackupError(ClientError):
    """Everything that this package raises on purpose, beside what reading from and writing to a server raises."""


class RepositoryError(BackupError):
    """The repository, or a file of it, cannot be used as it is."""

    def __init__(self, path: Path, what: str, why: str, advice: str) -> None:
        super().__init__(what, why, advice)
        self.path = path


class BusyError(BackupError):
    """Another run is at work on the disk; `pid` is None where the system does not tell."""

    def __init__(self, name: str, pid: int | None, work: str) -> None:
        who = f"process {pid}" if pid is not None else "another process"
        super().__init__(name, f"{who} is at work on it ({work})", "wait until it has ended")
        self.name = name
        self.pid = pid


class ChangesUnknown(BackupError):
    """What has changed since the parent is not known, so there can be no incremental."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"incremental of {name}", why, "make a full backup, or give --allow-full to have one made now")
        self.name = name


class NoSuchPoint(BackupError):
    """The repository does not have this disk, or this point in time of it."""


@dataclass(frozen=True)
class Damage:
    """Bytes [offset, offset + length) of `file` are not what they were.

    `disk_offset` is where they stand on the disk, None if they are no data of it. A length of 0 is the whole file.
    """

    file: str
    offset: int
    length: int
    disk_offset: int | None
    why: str

    def __str__(self) -> str:
        where = f" bytes {self.offset} to {self.offset + self.length - 1}" if self.length else ""
        disk = f" (bytes {self.disk_offset} … of the disk)" if self.disk_offset is not None else ""
        return f"{self.file}{where}{disk}: {self.why}"

    def facts(self) -> dict[str, object]:
        """The same for machines."""
        return asdict(self)


class DifferentError(BackupError):
    """A point is not what the server has: its checksum is `found`, and the server's `expected`."""

    def __init__(self, name: str, point: int, found: str, expected: str) -> None:
        why = f"its checksum is {found}, and the server's {expected}: it was removed again"
        advice = (
            "see that the image does not change, and that the bitmap began at the point before; then make a full one"
        )
        super().__init__(f"point {point} of {name}", why, advice)
        self.found = found
        self.expected = expected


class DamagedError(BackupError):
    """What stands in the repository is not what its manifests say."""

    def __init__(self, name: str, damages: Sequence[Damage]) -> None:
        shown = "; ".join(str(damage) for damage in damages[:SHOWN_DAMAGES])
        more = f"; and {len(damages) - SHOWN_DAMAGES} more" if len(damages) > SHOWN_DAMAGES else ""
        super().__init__(name, f"damaged: {shown}{more}", "restore another point in time, and make a full backup")
        self.name = name
        self.damages = list(damages)
