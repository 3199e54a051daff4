"""A few threads for what would hold up the loop: file I/O and hashing, which Python does without its lock.

loop ──submit──► queue ──► threads ──► done ──eventfd──► loop: on_done(command, errno)
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

from workers.image.loop import READ, Loop
from workers.image.plan import Command

Call = Callable[[Command], None]
"""Carries out a command. Raises OSError, whose errno is the answer."""

# A thread that has finished a system call wants the lock back for a few microseconds; the default makes it wait 5 ms
# for a loop that is busy.
SWITCH_S = 0.0005


class Threads:
    """`count` threads; `on_done` is called in the loop for each command, with 0 or the errno."""

    def __init__(self, loop: Loop, name: str, count: int, on_done: Callable[[Command, int], None]) -> None:
        sys.setswitchinterval(SWITCH_S)
        self._loop = loop
        self._on_done = on_done
        self._count = count
        self._queue: SimpleQueue[tuple[Command, Call] | None] = SimpleQueue()
        self._done: deque[tuple[Command, int | BaseException]] = deque()
        self._doorbell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        loop.watch(self._doorbell, READ, self._on_doorbell)
        # Daemons: a call that the kernel does not end must not keep the process.
        self._threads = [threading.Thread(target=self._work, name=f"{name}-{n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, command: Command, call: Call) -> None:
        """Have a thread call `call(command)`."""
        self._queue.put((command, call))

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            command, call = work
            self._done.append((command, _answer(command, call)))
            os.eventfd_write(self._doorbell, 1)
            del work, command, call  # or the last command's buffer would stay until the next one comes

    def _on_doorbell(self, events: int) -> None:
        os.eventfd_read(self._doorbell)
        while self._done:
            command, answer = self._done.popleft()
            if isinstance(answer, BaseException):
                raise answer
            self._on_done(command, answer)

    def close(self) -> None:
        """End the threads; nothing may be under way."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        self._loop.unwatch(self._doorbell)
        os.close(self._doorbell)


def _answer(command: Command, call: Call) -> int | BaseException:
    try:
        call(command)
    except OSError as error:
        return error.errno or errno.EIO
    except BaseException as error:  # noqa: BLE001 - a bug of ours: the loop raises it, where it ends the worker
        return error
    return 0
