"""When a dead process is started again, and when it is given up. Rules only: the clock's reading is passed in."""

from __future__ import annotations

FIRST_PAUSE_S = 0.1
# A process that lived so long was well: its next death is the first of a new series.
HEALTHY_S = 10.0


def pause_s(deaths: int, longest_s: float) -> float:
    """The pause after the `deaths`-th death in a row: none, then 0.1, 0.2, 0.4, … seconds, at most `longest_s`."""
    if deaths <= 1:
        return 0.0
    # 2**30 pauses of 0.1 s are a hundred years: the exponent is bounded so that the power stays a float.
    return min(longest_s, FIRST_PAUSE_S * 2.0 ** min(deaths - 2, 30))


class Backoff:
    """The restarts of one front end. It is never given up: the others may serve, and it may be a passing thing."""

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._started_s = 0.0
        self.deaths = 0

    def started(self, now_s: float) -> None:
        """The process was started now."""
        self._started_s = now_s

    def died(self, now_s: float) -> float:
        """The process ended now; the pause in seconds before it is started again."""
        if now_s - self._started_s >= HEALTHY_S:
            self.deaths = 0
        self.deaths += 1
        return pause_s(self.deaths, self._longest_s)


class Deaths:
    """The deaths of one export's workers. A completed job in between begins a new series, time alone does not.

    A worker that dies of what it was asked to do dies again as soon as it is asked again, however long it lived
    idle before.
    """

    def __init__(self, limit: int, longest_s: float) -> None:
        self._limit = limit
        self._longest_s = longest_s
        self._completed = 0
        self.in_a_row = 0

    def died(self, completed: int) -> float | None:
        """A worker ended when `completed` jobs had been completed since the export's first worker.

        The pause in seconds before the next one starts, or None: it is given up, and the next series begins.
        """
        if completed != self._completed:
            self.in_a_row = 0
        self._completed = completed
        self.in_a_row += 1
        if self.in_a_row >= self._limit:
            self.in_a_row = 0
            return None
        return pause_s(self.in_a_row, self._longest_s)
