"""The worker's event loop: epoll and a heap of timers, nothing else to pay for on the way of a chunk."""

from __future__ import annotations

import heapq
import select
import time
from collections.abc import Callable
from itertools import count

READ = select.EPOLLIN
WRITE = select.EPOLLOUT

Callback = Callable[[int], None]


class Timer:
    """A callback at a time; `cancel` makes it nothing."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """It will not be called."""
        self.call = None


class Loop:
    """Descriptors with callbacks (called with the epoll events), and timers on the monotonic clock."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = count()

    def watch(self, fd: int, events: int, callback: Callback) -> None:
        """Call `callback` when `fd` is ready for `events`; replaces an earlier one."""
        if fd in self._callbacks:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Forget `fd`, before it is closed."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call `call` after `seconds`."""
        timer = Timer(call)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), timer))
        return timer

    def run_once(self) -> None:
        """Wait for the next events or timer, and call what is due."""
        # What a callback closes may be opened again under the same number in the same turn: an event of before is
        # not for whom it belongs to now.
        ready = [(fd, events, self._callbacks.get(fd)) for fd, events in self._epoll.poll(self._patience_s())]
        for fd, events, callback in ready:
            if callback is not None and self._callbacks.get(fd) == callback:
                callback(events)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if timer.call is not None:
                timer.call()

    def _patience_s(self) -> float:
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1
