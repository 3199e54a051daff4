"""`mover` as a program that writes its journal ten times a second, so that tests need not wait for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.harness.mover import ROOT
from tests.harness.waiting import PROGRAM_S, wait_until

HASTY = """
import sys
from mover.client import keeper, sender
keeper.CHECKPOINT_S = sender.FLUSH_S = 0.1
{more}
from mover.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


class Program:
    """A running `mover ARGUMENTS`; `more` is Python that it does before."""

    def __init__(self, *arguments: str | Path, more: str = "") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", HASTY.format(more=more), *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip

    def done_bytes(self, journal: Path) -> int:
        """How much its journal says is done; it must still run."""
        assert self._process.poll() is None, self._process.communicate()
        try:
            return sum(length for _, length in json.loads(journal.read_bytes())["done"])
        except FileNotFoundError:
            return 0

    def kill_when(self, journal: Path, done: int, number: signal.Signals = signal.SIGKILL) -> None:
        """Send it the signal once its journal says that so many bytes are done."""
        wait_until(f"{done} bytes are in the journal", lambda: self.done_bytes(journal) >= done, 60)
        self._process.send_signal(number)

    def end(self) -> tuple[int, str, str]:
        """Wait for its end: its status, and what it printed."""
        output, errors = self._process.communicate(timeout=PROGRAM_S)
        return self._process.returncode, output.decode(), errors.decode()


def run(*arguments: str | Path, more: str = "") -> tuple[int, str, str]:
    """Run it to its end."""
    return Program(*arguments, more=more).end()


def events(output: str) -> list[dict[str, Any]]:
    """What `--json` printed."""
    return [json.loads(line) for line in output.splitlines()]
