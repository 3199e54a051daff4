"""What one worker, connection or server leaves to the next, and when the ledger hears of it. Rules, no I/O.

    worker dead       fenced ──► its doubts are cleared                fence failed ──► writes over them wait, settling
    connection lost   fenced ──► its commands are sent again           fence failed ──► its writes wait, settling
    server lost       what is confirmed and not flushed is lost: in the ledger before anybody else hears of the end

The settling is the shell's: it calls `settled` or `Schedule.lost` when the time is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic

from workers.image.plan import WRITING, Command, Limits
from workers.image.schedule import Doubt, LaneT, Schedule
from workers.server_process import UNKNOWN


class Succession(Generic[LaneT]):
    """The rules of taking over for one schedule; `local` if servers can be told apart (a Unix socket)."""

    def __init__(self, schedule: Schedule[LaneT], local: bool) -> None:
        self._schedule = schedule
        self._local = local

    def take_over(self, server_lost: bool, doubts: Sequence[Doubt]) -> bool:
        """What the supervisor says of the predecessor; True if `settled` must follow when the doubts' time is over."""
        if server_lost:
            self._schedule.ledger.server_lost()
        for offset, length, owner in doubts:
            self._schedule.doubt(offset, length, owner)
        if not doubts:
            self._schedule.ledger.clear_doubts()
        return bool(doubts)

    def settled(self) -> None:
        """The predecessor's last commands have landed, or never will."""
        self._schedule.ledger.clear_doubts()
        self._schedule.settled()

    def connected(self, server: tuple[int, int], limits: Limits) -> bool:
        """There is a connection again; True if that shows confirmed writes to be lost with an earlier server."""
        loses = self._local and self._schedule.ledger.server(server)
        self._schedule.connected(limits)
        return loses

    def disconnected(
        self, server: tuple[int, int], was_ready: bool, commands: list[Command], fenced: bool
    ) -> list[Command]:
        """A connection has ended with `commands` unanswered; those returned go to `Schedule.lost` only when settled.

        Until then the supervisor must keep its duplicate of the socket: if we die, it fences once more.
        """
        if was_ready and server == UNKNOWN:
            # It cannot be told whether it is the same server afterwards.
            self._schedule.ledger.server_lost()
        late = [] if fenced else [command for command in commands if command.operation in WRITING]
        self._schedule.lost([command for command in commands if command not in late])
        return late
