"""Exit statuses, and the one line on standard error that goes with every one that is not 0."""

from __future__ import annotations

import enum
import sys


class Status(enum.IntEnum):
    """What `mover` exits with."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    VERIFICATION = 4
    INTERRUPTED = 130


class UsageError(Exception):
    """The command line asks for what there is not."""


class CannotStartError(Exception):
    """Something that the command needs is missing or cannot be reached."""


def complain(text: str, status: Status) -> Status:
    """Writes `mover: TEXT` to standard error, as one line, and returns `status`."""
    print("mover:", " ".join(text.split()), file=sys.stderr)
    return status
