"""What workers count, over all lives of an export's worker (workers/lane/tally.py)."""

from __future__ import annotations

from workers.image.plan import Operation
from workers.lane.tally import Durations, Layout

OPERATIONS = tuple(operation.name.lower() for operation in Operation)

LAYOUT = Layout()
COMMANDS = LAYOUT.histogram(
    "mover_nbd_command_seconds", "From a command's sending to its answer, by the NBD server or the kernel.",
    operation=OPERATIONS,
)  # fmt: skip
MOVED = LAYOUT.counter(
    "mover_nbd_bytes", "Bytes of commands that were answered without an error.", operation=("read", "write", "zero")
)
ERRORS = LAYOUT.counter("mover_nbd_errors", "Commands that were answered with an error.", operation=OPERATIONS)
RECONNECTS = LAYOUT.counter("mover_nbd_reconnects", "Times that an export's last connection was lost and looked for.")
REPLAYS = LAYOUT.counter("mover_nbd_replays", "Commands that were sent again on another connection.")


class Counts:
    """One worker's tally."""

    def __init__(self, words: memoryview) -> None:
        self._words = words
        self._durations = {one: Durations(words, COMMANDS.at(operation=one.name.lower())) for one in Operation}
        self._moved = {
            one: MOVED.at(operation=one.name.lower()) for one in (Operation.READ, Operation.WRITE, Operation.ZERO)
        }

    def ended(self, operation: Operation, length: int, error: int, duration_ns: int) -> None:
        """A command was answered."""
        self._durations[operation].add(duration_ns)
        if error:
            self._words[ERRORS.at(operation=operation.name.lower())] += 1
        elif operation in self._moved:
            self._words[self._moved[operation]] += length

    def reconnecting(self) -> None:
        """No connection is left, and another one is looked for."""
        self._words[RECONNECTS.first] += 1

    def replayed(self, commands: int) -> None:
        """So many commands are sent again."""
        self._words[REPLAYS.first] += commands
