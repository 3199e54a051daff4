"""Processes that are killed with SIGKILL: at once, or right before the Nth change to the file system, for every N."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

# What changes files or makes them durable; between two of these nothing happens that a crash could show.
CALLS = ("rename", "unlink", "fsync", "pwrite", "ftruncate", "mkdir", "open")
SURVIVED, FAILED = 0, 1


def kill(pid: int | None) -> None:
    """Kill a process, which may have ended already, or never have been there."""
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_at_every_step(work: Callable[[], object]) -> Iterator[int]:
    """Yields N = 1, 2, … after a process that did `work` was killed before its Nth change; ends when one survives.

    The caller restores the scene before it asks for the next one. Fails the test if the work fails by itself.
    """
    for number in itertools.count(1):
        status = _in_child(work, number)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            yield number
            continue
        assert os.waitstatus_to_exitcode(status) == SURVIVED, "the work failed by itself: see what it printed"
        return


def _in_child(work: Callable[[], object], number: int) -> int:
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    try:
        _arm(number)
        work()
    except BaseException:  # noqa: BLE001 - a forked child must not return into pytest
        traceback.print_exc()
        os._exit(FAILED)
    os._exit(SURVIVED)


def _arm(number: int) -> None:
    """Have this process killed before its `number`th call."""
    lock = threading.Lock()
    calls = itertools.count(1)

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            with lock:
                if next(calls) == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **named)

        return call

    for name in CALLS:
        setattr(os, name, dying(getattr(os, name)))
