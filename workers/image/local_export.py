"""What both kinds of files share as a worker's connection: the kernel is the server, and opening one does not wait."""

from __future__ import annotations

from abc import abstractmethod

from config.export import Export
from config.roots import Roots
from workers.image.connection import Event, Owner
from workers.image.loop import Loop
from workers.image.plan import Limits
from workers.image.threaded_export import ThreadedExport

# Cached pages: two copy 6 to 14 GiB/s on two cores, and more copy no more. A disk likes a few more at once.
THREADS = 4


class LocalExport(ThreadedExport):
    """A file as a connection; `number` is unique in this worker. Subclasses open it and say what a command does.

    `roots` say where the path may lead, None where it is the settings' own.
    """

    def __init__(self, number: int, export: Export, roots: Roots | None, loop: Loop, owner: Owner) -> None:
        super().__init__(number, export, loop, owner)
        self._roots = roots

    def open(self) -> None:
        """Open the file; `connected` or `disconnected` of the owner is called before this returns."""
        self._move(Event.OPEN)
        try:
            limits = self._open()
        except OSError as error:
            self.break_off(f"cannot open the file: {error.strerror}")
            return
        self._start("file", THREADS)
        self._ready(limits)

    @abstractmethod
    def _open(self) -> Limits:
        """Look at the file. Raises OSError, with nothing left open."""
