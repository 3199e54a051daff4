"""How long a client may take: the rule by which slow ones are told from those that hold things up. No I/O.

A client has a credit of `patience_s` seconds. Waiting for it uses the credit up, what it moves gives it back: a second
for each `least_bytes_s` bytes. So one that moves nothing is out of credit after `patience_s`, one that moves a byte now
and then hardly later, and one that pauses and goes on never.
"""

from __future__ import annotations

from mover.front.meter import Meter


class Pace:
    """One client's credit; `meter` says how fast it may go, if anything does."""

    __slots__ = ("_least_bytes_s", "left_s", "meter", "patience_s")

    def __init__(self, patience_s: float, least_bytes_s: int, meter: Meter | None = None) -> None:
        self.meter = meter
        self.patience_s = patience_s
        self._least_bytes_s = least_bytes_s
        self.left_s = patience_s

    def moved(self, count: int) -> None:
        """The client has taken or sent so many bytes."""
        self.left_s = min(self.patience_s, self.left_s + count / self._least_bytes_s)

    def waited(self, seconds: float) -> None:
        """It was waited for so long; there may be nothing left now."""
        self.left_s -= seconds
