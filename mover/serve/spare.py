"""A worker that was started before anybody needs it: the first byte of an export does not wait for Python's imports.

Measured: 55 ms to the first byte without it, most of them imports; the bench's row `firstbyte` shows it. It also
shortens a replay, since a killed worker's successor is there already. It holds nothing and knows no export.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from config.log import facts
from mover.serve.errors import Misbehaved
from mover.serve.processes import Child
from mover.serve.programs import Programs
from workers.messages import FromWorker

log = logging.getLogger(__name__)

# The next one is started when the first transfers of the last one are under way.
PAUSE_S = 0.1

OnMessage = Callable[[FromWorker, list[int]], None]
OnEnd = Callable[[int], None]


class Spare:
    """Keeps one worker process waiting for its first message."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._loop = asyncio.get_running_loop()
        self._child: Child[FromWorker] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def prepare(self) -> None:
        """Start one, if there is none."""
        self._timer = None
        if self._child is None and not self._closed:
            try:
                self._child = self._started(self._on_message, self._on_end)
            except OSError as error:
                log.warning("cannot start a spare worker", extra=facts(why=error))

    def can_start(self) -> bool:
        """Whether a worker is ready to begin, or about to be; if not, that is tried again now."""
        if self._child is None and self._timer is None:
            self.prepare()
        return self._child is not None or self._timer is not None

    def take(self, on_message: OnMessage, on_end: OnEnd) -> Child[FromWorker]:
        """The spare, or a new process if there is none. Raises OSError when that cannot be started."""
        child, self._child = self._child, None
        if child is None:
            child = self._started(on_message, on_end)
        else:
            child.adopt(on_message, on_end)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(PAUSE_S, self.prepare)
        return child

    def close(self) -> None:
        """End it; there will be no other."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._child is not None:
            self._child.kill()

    def _started(self, on_message: OnMessage, on_end: OnEnd) -> Child[FromWorker]:
        return Child(self._programs.worker, self._programs.environment, FromWorker, on_message, on_end)

    def _on_message(self, message: FromWorker, fds: list[int]) -> None:
        raise Misbehaved("it spoke before it was spoken to")

    def _on_end(self, status: int) -> None:
        self._child = None
        if not self._closed:
            log.warning("spare worker ended", extra=facts(status=status))
