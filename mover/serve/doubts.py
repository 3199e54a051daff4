"""What a successor must know about writes whose end nobody saw. Rules, no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Doubt = tuple[int, int, int]
# Above this many a Serve message might not fit its packet; one range around them all is then as safe, only slower.
RANGES_MOST = 4096


@dataclass(frozen=True)
class Doubts:
    """(offset, length, tag): ranges in bytes that a dead worker's command, of the job `tag`, may still write until
    `until_s`."""

    ranges: Sequence[Doubt] = ()
    until_s: float = 0.0

    def after_death(self, fenced: bool, begun: Sequence[Doubt], now_s: float, settle_s: float) -> Doubts:
        """The doubts once the fences are through: `fenced` if nothing of it can land any more; `begun` is what
        the ledger holds as begun and not ended.

        Doubts from before last until their time is over: that connection has not ended by another one's end.
        """
        old = list(self.ranges) if now_s < self.until_s else []
        if fenced:
            return Doubts(old, self.until_s if old else 0.0)
        return Doubts(_bounded(old + list(begun)), now_s + settle_s)


def _bounded(ranges: list[Doubt]) -> list[Doubt]:
    if len(ranges) <= RANGES_MOST:
        return ranges
    start = min(offset for offset, _, _ in ranges)
    return [(start, max(offset + length for offset, length, _ in ranges) - start, 0)]
