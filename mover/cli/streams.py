"""The standard streams: there, whatever the shell left open, and able to take every name."""

from __future__ import annotations

import io
import os
import sys


def have_streams() -> None:
    """Have all three: else the next file or socket that is opened would be what images are printed to.

    One that was closed fails as such when it is used, but for standard error, on which nobody waits.
    """
    for number, flags in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDWR)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # the lowest number that is free
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 (stays open)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 (stays open)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files need not be UTF-8, and the terminal need not know all characters.
        sys.stdout.reconfigure(errors="backslashreplace")


def give_up_output() -> None:
    """What is still to be printed goes nowhere, rather than fail once more at the end of the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
