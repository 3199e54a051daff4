"""What a line of the log looks like."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import pytest

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


SAY = """
import logging
from config import log
from config.settings import LogSettings
log.setup(LogSettings(level="debug", format={format!r}), "front-1")
for level in (10, 20, 30, 40):
    logging.getLogger("mover.front").log(level, "an event")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("mover.front").exception("a bug")
"""


@pytest.mark.parametrize("format", ["text", "json"])
@pytest.mark.parametrize("journal", ["here", "elsewhere"])
def test_the_journal_learns_each_lines_priority(format: str, journal: str) -> None:
    """Where systemd's journal reads it, a line begins with its priority, a traceback's too; nowhere else."""
    ours, theirs = os.pipe()
    with open(ours, "rb") as reader, open(theirs, "wb") as writer:
        found = os.fstat(writer.fileno())
        stream = f"{found.st_dev}:{found.st_ino + (journal == 'elsewhere')}"
        subprocess.run(
            [sys.executable, "-c", SAY.format(format=format)], stderr=writer, timeout=60, check=True,
            env={**os.environ, "JOURNAL_STREAM": stream},
        )  # fmt: skip
        writer.close()
        lines = reader.read().decode().splitlines()
    assert any("ZeroDivisionError" in line for line in lines)
    begins = [line[:3] if line.startswith("<") else "" for line in lines]
    expected = ["<7>", "", "<4>", *["<3>"] * (len(lines) - 3)]
    assert begins == (expected if journal == "here" else [""] * len(lines))
