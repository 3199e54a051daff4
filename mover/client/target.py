"""What every place is that a download goes to, and every worker's way into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from mover.client.plan import Run

Written = Callable[[int, int], None]
"""Called with offset and length when these bytes are in the file, from the worker's thread."""


class Writer(Protocol):
    """One worker's way into the target."""

    def buffer(self) -> memoryview:
        """Room for the next bytes; its former content is written."""

    def write(self, offset: int, view: memoryview, written: Written) -> None:
        """Write the first bytes of the last buffer. Raises LocalError, perhaps of an earlier one."""

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros, where the target does not do so by itself."""

    def read(self, offset: int, view: memoryview) -> None:
        """Fill the view from the target."""

    def finish(self) -> None:
        """All is written when this returns."""

    def close(self) -> None:
        """Give everything back."""


class Target(Protocol):
    """Where a download goes. `fresh`: it reads as zeros where nothing was written yet."""

    fresh: bool
    journal: Path
    kept: str

    @property
    def was_there(self) -> bool:
        """Something of an earlier job is there."""

    def lock(self) -> None:
        """Take it for this job alone, before its journal is read. Raises LocalError."""

    def open(self, size_bytes: int, runs: Sequence[Run], resume: bool) -> None:
        """Make it ready for an image of this size, of which these runs will be written. Raises LocalError."""

    def writer(self, buffer_bytes: int) -> Writer:
        """A way in for one worker; from any thread."""

    def sync(self) -> None:
        """Make durable what was written. Raises LocalError."""

    def commit(self) -> None:
        """It is complete: make it durable, and have it appear under its name."""

    def close(self, keep: bool) -> None:
        """Give everything back; what is not complete is left for later, or removed."""
