"""Threads that share a job's tasks. The first error wins: the others are stopped where they are."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

MAX_WORKERS = 4
TICK_S = 0.1

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

logger = logging.getLogger(__name__)


class Stopped(Exception):
    """The job ends: whoever waits for something stops."""


class Worker(Protocol[T_contra]):
    """One thread's tools."""

    def do(self, task: T_contra) -> None:
        """One task."""

    def finish(self) -> None:
        """There are no more tasks: see that everything is where it should be."""

    def abort(self) -> None:
        """From another thread: end what is under way with an error."""

    def close(self) -> None:
        """Give everything back; by its own thread."""


class Crew(Generic[T]):
    """One job's threads."""

    def __init__(self, tick: Callable[[], None]) -> None:
        """`tick` is called by the job's own thread, ten times a second."""
        self._tick = tick
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._working = 0
        self._workers: list[Worker[T]] = []
        self._error: BaseException | None = None

    def sleep(self, seconds: float) -> None:
        """As time.sleep, for workers. Raises Stopped."""
        if self._stop.wait(seconds):
            raise Stopped

    def run(self, tasks: Iterable[T], hire: Callable[[], Worker[T]], count: int) -> None:
        """Have `count` workers, hired in their own threads, do all tasks. Raises the first error of any."""
        waiting = iter(tasks)
        lock = threading.Lock()

        def next_task() -> T | None:
            with lock:
                return next(waiting, None)

        self._working = count
        threads = [threading.Thread(target=self._work, args=(hire, next_task), daemon=True) for _ in range(count)]
        try:
            for thread in threads:
                thread.start()
            while not self._all_done():
                self._tick()
        finally:
            self.stop()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End whatever the workers are at."""
        with self._changed:
            self._stop.set()
            workers = list(self._workers)
        for worker in workers:
            worker.abort()

    def wake(self) -> None:
        """Have `tick` called now; from any thread."""
        with self._changed:
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """End the job with this error, if it is the first; from any thread."""
        with self._changed:
            first = self._error is None
            if first and not (isinstance(error, Stopped) or self._stop.is_set()):
                self._error = error
            elif not self._stop.is_set():
                logger.debug("another error: %s", error)
            self._changed.notify_all()
        if first:
            self.stop()

    def _all_done(self) -> bool:
        with self._changed:
            if self._working:
                self._changed.wait(TICK_S)
            return not self._working

    def _work(self, hire: Callable[[], Worker[T]], next_task: Callable[[], T | None]) -> None:
        worker: Worker[T] | None = None
        try:
            worker = hire()
            with self._changed:
                self._workers.append(worker)
            while not self._stop.is_set() and (task := next_task()) is not None:
                worker.do(task)
            if not self._stop.is_set():
                worker.finish()
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised again in the job's own thread
            self.fail(error)
        finally:
            if worker is not None:
                worker.close()
            with self._changed:
                self._working -= 1
                self._changed.notify_all()
