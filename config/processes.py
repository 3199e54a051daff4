"""When a process was started, which tells it from a later one of the same pid."""

from __future__ import annotations

# State and start time, counted after the program's name, which may hold anything.
_STATE, _STARTED = 0, 19


def started(pid: int) -> int:
    """In clock ticks since the host's start; 0 if there is no such process, or nothing but its status is left."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[_STATE] in (b"Z", b"X") else int(fields[_STARTED])
