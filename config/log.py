"""Logging to standard error: one line an event, its facts as key=value text or as one JSON object.

Every module has its own logger (`logging.getLogger(__name__)`); facts go in by `extra=facts(offset=0, length=512)`.
"""

from __future__ import annotations

import json
import logging
import sys
import time

from config.settings import LogSettings

# Text of these characters only stands in a line as it is; everything else is quoted, so that a line can be split
# at spaces and no value can look like another fact or begin a line of its own.
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+.,:/@%?&[]()")


# Who installed, used and removed which ticket: written whatever the level.
AUDIT = "mover.audit"


def setup(settings: LogSettings, process: str) -> None:
    """Send this process's log to standard error; `process` says in each line who speaks, like `supervisor`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(process) if settings.format == "json" else TextLines(process))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    logging.getLogger(AUDIT).setLevel(logging.INFO)


def facts(**values: object) -> dict[str, dict[str, object]]:
    """What an event is about, as `extra` of a logging call."""
    return {"facts": values}


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


def _facts(record: logging.LogRecord) -> dict[str, object]:
    values: dict[str, object] = getattr(record, "facts", {})
    return values


def _time(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03}Z"


def _quoted(value: object) -> str:
    text = str(value)
    return text if text and _PLAIN.issuperset(text) else json.dumps(text)
