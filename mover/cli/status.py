"""Exit statuses, the one line on standard error that goes with every one that is not 0, and the same for machines."""

from __future__ import annotations

import enum
import json
import sys
from typing import Any, TextIO

# What an error is called that is none of the library's.
NAMES = {1: "Failed", 2: "UsageError", 3: "CannotStartError", 4: "Failed", 130: "Interrupted"}


class Status(enum.IntEnum):
    """What `mover` exits with."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    VERIFICATION = 4
    INTERRUPTED = 130


class Failed(Exception):
    """The command ends with `status`; `text` says what failed, why, and what to do. `cause` has the facts."""

    def __init__(self, text: str, status: Status = Status.FAILED, cause: Exception | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.cause = cause

    def event(self) -> dict[str, Any]:
        """The same for machines: the name of the error, the exit status, the line, and the facts there are."""
        facts = {} if self.cause is None else vars(self.cause)
        facts = {name: value for name, value in facts.items() if isinstance(value, int | str | list | float)}
        if "image" in facts:
            from mover.client.errors import shown

            facts["image"] = shown(facts["image"])  # who has a ticket's id may use it
        name = NAMES[self.status] if self.cause is None else type(self.cause).__name__
        return {"event": "error", "error": name, "status_code": self.status, "message": one_line(self), **facts}


class UsageError(Failed):
    """The command line asks for what there is not."""

    def __init__(self, text: str) -> None:
        super().__init__(text, Status.USAGE)


class CannotStartError(Failed):
    """Something that the command needs is missing or cannot be reached."""

    def __init__(self, text: str) -> None:
        super().__init__(text, Status.UNREACHABLE)


class Interrupted(Failed):
    """Ctrl-C or SIGTERM has ended the command."""

    def __init__(self, text: str) -> None:
        super().__init__(text, Status.INTERRUPTED)


def one_line(text: object) -> str:
    """The text as one line that moves no cursor and paints nothing: names in it may be anybody's."""
    return visible(" ".join(str(text).split()))


def visible(text: str) -> str:
    """The text with what a terminal would obey written out, as \\x1b."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def emit(event: object, events: TextIO) -> None:
    """One line of JSON."""
    print(json.dumps(event, default=str), file=events, flush=True)


def report(error: Failed, events: TextIO | None) -> Status:
    """Say what failed: the line on standard error, and before it the event for who reads `events`."""
    if events is not None:
        emit(error.event(), events)
    return complain(str(error), error.status)


def complain(text: str, status: Status) -> Status:
    """Writes `mover: TEXT` to standard error, as one line, and returns `status`."""
    print("mover:", one_line(text), file=sys.stderr)
    return status
