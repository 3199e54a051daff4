"""A few threads for requests to a store's server.

Not concurrent.futures' own pool: the interpreter waits for its threads when it ends, and a server that hangs would keep
a worker that is to leave.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class Pool:
    """`count` daemon threads."""

    def __init__(self, name: str, count: int) -> None:
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=f"{name}-{n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Have a thread call it."""
        future = Future[T]()
        self._queue.put((future, call))
        return future

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            future, call = work
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - whoever asks for the result gets it
                future.set_exception(error)
            del work, future, call  # or the last bytes would stay until the next come

    def close(self, wait: bool) -> None:
        """What was submitted is done, and then the threads end; `wait` for that."""
        for _ in self._threads:
            self._queue.put(None)
        if wait:
            for thread in self._threads:
                thread.join()
