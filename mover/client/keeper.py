"""Keeps a job's journal while it runs: every few seconds, what was done is made durable, then written down."""

from __future__ import annotations

import threading
from collections.abc import Callable

from msgspec.structs import replace

from mover.client.errors import ClientError
from mover.client.journal import Begun, Journal
from mover.client.ranges import Ranges

CHECKPOINT_S = 2.0


class Keeper:
    """What is done of a job. `sync` makes durable what is in `done` when it is called."""

    def __init__(
        self, journal: Journal, begun: Begun, sync: Callable[[], None], fail: Callable[[BaseException], None]
    ) -> None:
        self._journal = journal
        self._begun = begun
        self._sync = sync
        self._fail = fail
        self._lock = threading.Lock()
        self._done = Ranges(begun.done)
        self._saved = list(self._done)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def start(self) -> None:
        """Begin to write it down."""
        self._thread.start()

    def done(self, offset: int, length: int) -> None:
        """These bytes are done; from any thread."""
        with self._lock:
            self._done.add(offset, length)

    def stop(self) -> None:
        """Write it down no more."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def save(self) -> bool:
        """Make durable and write down what is done now; whether that is anything. Raises ClientError."""
        with self._lock:
            done = list(self._done)
        if done != self._saved:
            self._sync()
            self._journal.save(replace(self._begun, done=done))
            self._saved = done
        return bool(done)

    def _keep(self) -> None:
        while not self._stop.wait(CHECKPOINT_S):
            try:
                self.save()
            except ClientError as error:
                self._fail(error)
                return
