"""The live screen of `mover top`."""

from __future__ import annotations

import select
import sys
import termios
import tty

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from mover.cli.house import look, with_rates
from mover.cli.house_view import screen
from mover.cli.status import CannotStartError

# Lines that are not rows of transfers or workers.
OTHER_LINES = 18


def keep_showing(path: str, interval_s: float) -> None:
    """Show the service at this socket until q or Ctrl-C. A service that is restarted meanwhile is waited for.

    Raises CannotStartError if it is not there at the start.
    """
    console = Console(highlight=False)
    before = look(path)
    with _Keys() as keys, Live(Text("…"), console=console, screen=True, auto_refresh=False) as live:
        while not keys.quits_within(interval_s):
            shown: RenderableType
            try:
                now = look(path)
                shown = screen(with_rates(before, now), max(3, (console.height - OTHER_LINES) // 2))
                before = now
            except CannotStartError as error:
                shown = Text(str(error), "red")
            live.update(shown, refresh=True)


class _Keys:
    """Keys as they are pressed; the terminal is left as it was."""

    def __enter__(self) -> _Keys:
        self._fd = sys.stdin.fileno()
        self._before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd)
        return self

    def __exit__(self, *_: object) -> None:
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def quits_within(self, seconds: float) -> bool:
        """Wait for a key; whether it says that it is enough."""
        ready, _, _ = select.select([self._fd], [], [], seconds)
        return bool(ready) and sys.stdin.read(1) in ("q", "Q", "\x03", "")
