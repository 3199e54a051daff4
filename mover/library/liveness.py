"""Whether a process is still the one it was: its pid, and when it was started."""

from __future__ import annotations

import os
from functools import cache

from config.processes import started


@cache
def own_identity() -> str:
    """PID.START of this process."""
    return f"{os.getpid()}.{started(os.getpid())}"


def is_alive(identity: str) -> bool:
    """Whether the process with this PID.START runs. Of what is no identity: False."""
    pid, _, begun = identity.partition(".")
    if not (pid.isascii() and pid.isdigit() and begun):
        return False
    return begun != "0" and str(started(int(pid))) == begun
