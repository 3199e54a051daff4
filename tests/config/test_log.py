"""What a line of the log looks like."""

from __future__ import annotations

import json
import logging

from config.log import JsonLines, TextLines, facts


def _record(message: str, **values: object) -> logging.LogRecord:
    logger = logging.getLogger("mover.front")
    record = logger.makeRecord(logger.name, logging.INFO, "", 0, message, (), None, extra=facts(**values))
    record.created, record.msecs = 1700000000.25, 250.0
    return record


def test_text_lines_split_at_spaces() -> None:
    """Values that hold spaces, quotes or line ends are quoted, so one event is one line of key=value facts."""
    line = TextLines("front-1").format(_record("ended", offset=512, why='a "b"\nc', empty=""))
    assert line == ('2023-11-14T22:13:20.250Z info front-1 mover.front: ended offset=512 why="a \\"b\\"\\nc" empty=""')


def test_json_lines_are_objects() -> None:
    """One object a line, the facts under their own names, and none of them hides what every line has."""
    line = JsonLines("front-1").format(_record("ended", offset=512, level="other"))
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "info",
        "process": "front-1",
        "logger": "mover.front",
        "event": "ended",
        "offset": 512,
    }
