"""Waiting for what nobody announces: a process's end, a count that falls."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Only a failing test waits so long: a host whose processors are others' for a while must not look like a failure.
PATIENCE_S = 60.0
# The same for a program's whole work: hashing, converting, or only importing all that it needs.
PROGRAM_S = 300.0
POLL_S = 0.01


def wait_until(what: str, answer: Callable[[], T | bool | None], patience_s: float = PATIENCE_S) -> T:
    """Ask until the answer is true, and return it; AssertionError says `what` was waited for in vain."""
    deadline = time.monotonic() + patience_s
    while not (found := answer()):
        assert time.monotonic() < deadline, f"waited {patience_s:g} s in vain: {what}"
        select.select([], [], [], POLL_S)
    return found  # type: ignore[return-value]  # True where T is bool
