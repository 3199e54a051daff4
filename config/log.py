"""Logging to standard error: one line an event, its facts as key=value text or as one JSON object.

Every module has its own logger (`logging.getLogger(__name__)`); facts go in by `extra=facts(offset=0, length=512)`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import TextIO

from config.settings import LogSettings

# Text of these characters only stands in a line as it is; everything else is quoted, so that a line can be split
# at spaces and no value can look like another fact or begin a line of its own.
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+.,:/@%?&[]()")


# Who installed, used and removed which ticket: written whatever the level.
AUDIT = "mover.audit"

# The request that is at work, in every line that it causes.
REQUEST: ContextVar[str | None] = ContextVar("request", default=None)

# Lines that are gathered go out so soon; a page of them at once, which no other process's line can come into: writes to
# a pipe are whole up to this size (pipe(7)).
GATHER_S = 0.02
WRITE_BYTES = 4096


def setup(settings: LogSettings, process: str) -> None:
    """Send this process's log to standard error; `process` says in each line who speaks, like `supervisor`."""
    handler = _Handler(sys.stderr)
    lines = JsonLines(process) if settings.format == "json" else TextLines(process)
    handler.setFormatter(JournalLines(lines) if _is_journal() else lines)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    logging.getLogger(AUDIT).setLevel(logging.INFO)


def facts(**values: object) -> dict[str, dict[str, object]]:
    """What an event is about, as `extra` of a logging call."""
    return {"facts": values}


class Batch:
    """Lines that come by thousands a second, written many at once; `later` calls a function after some seconds."""

    def __init__(self, later: Callable[[float, Callable[[], None]], object]) -> None:
        self._later = later
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        """One more line, with its end."""
        if not self._lines:
            _gathering.add(self)
            self._later(GATHER_S, self.flush)
        self._lines.append(line)

    def flush(self) -> None:
        """Write what has been gathered."""
        lines, self._lines = self._lines, []
        _gathering.discard(self)
        page: list[str] = []
        room = WRITE_BYTES
        for line in lines:
            if len(line) > room and page:
                _write(page)
                page, room = [], WRITE_BYTES
            page.append(line)
            room -= len(line)
        _write(page)


_gathering: set[Batch] = set()


def flush() -> None:
    """Write what is gathered: the process ends, or a line comes that is not gathered."""
    for batch in list(_gathering):
        batch.flush()


def _write(lines: list[str]) -> None:
    try:
        os.write(2, "".join(lines).encode())
    except OSError:
        pass  # nobody listens, and there is nobody else to tell


class _Handler(logging.StreamHandler[TextIO]):
    """Writes each line at once, after those that were gathered before it."""

    def emit(self, record: logging.LogRecord) -> None:
        if _gathering:
            flush()
        super().emit(record)


class TextLines(logging.Formatter):
    """`2025-01-31T12:00:00.250Z info front-1 mover.front.images: transfer ended offset=0 length=512`."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line; a traceback, if there is one, follows on lines of its own."""
        head = f"{_time(record)} {record.levelname.lower()} {self._process} {record.name}: {record.getMessage()}"
        line = " ".join([head, *(f"{key}={_quoted(value)}" for key, value in _facts(record).items())])
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, process, logger, event, and the facts under their own names."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON; a traceback stands under `traceback`."""
        line = {
            **_facts(record),
            "time": _time(record),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "event": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


# sd-daemon(3); a line without is 6, informational.
_PRIORITIES = {logging.DEBUG: "<7>", logging.WARNING: "<4>", logging.ERROR: "<3>", logging.CRITICAL: "<2>"}


class JournalLines(logging.Formatter):
    """Another one's lines, each with the priority that `journalctl -p` asks for; the journal takes it off again."""

    def __init__(self, lines: logging.Formatter) -> None:
        super().__init__()
        self._lines = lines

    def format(self, record: logging.LogRecord) -> str:
        """The record, a traceback's lines too."""
        priority = _PRIORITIES.get(record.levelno, "")
        return "\n".join(priority + line for line in self._lines.format(record).split("\n"))


def _is_journal() -> bool:
    """Whether systemd's journal reads standard error (systemd.exec(5), $JOURNAL_STREAM)."""
    journal = os.environ.get("JOURNAL_STREAM")
    if not journal:
        return False
    found = os.fstat(2)
    return journal == f"{found.st_dev}:{found.st_ino}"


def _facts(record: logging.LogRecord) -> dict[str, object]:
    values: dict[str, object] = getattr(record, "facts", {})
    request = REQUEST.get()
    return values if request is None else {**values, "request": request}


def _time(record: logging.LogRecord) -> str:
    return stamp(int(record.created) * 1000 + int(record.msecs))


def stamp(now_ms: int) -> str:
    """A time in milliseconds since 1970, as every line begins: `2025-01-31T12:00:00.250Z`."""
    seconds, ms = divmod(now_ms, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{ms:03}Z"


def _quoted(value: object) -> str:
    text = str(value)
    return text if text and _PLAIN.issuperset(text) else json.dumps(text)
