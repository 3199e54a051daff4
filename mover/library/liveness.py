"""Whether a process is still the one it was: its pid, and when it was started."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path


@cache
def own_identity() -> str:
    """PID.START of this process."""
    return f"{os.getpid()}.{_start(os.getpid())}"


def is_alive(identity: str) -> bool:
    """Whether the process with this PID.START runs. Of what is no identity: False."""
    pid, _, start = identity.partition(".")
    if not (pid.isascii() and pid.isdigit() and start):
        return False
    return _start(int(pid)) == start


def _start(pid: int) -> str | None:
    """The start of a process in clock ticks since the host's; None if it is gone, or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in parentheses, may hold anything.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]
