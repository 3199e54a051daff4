"""What all front ends are asked at once, and who has not answered yet."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable

from mover.serve.messages import TicketsUsed, TicketUse


class Question:
    """AskUses to `asked`; `done` when each of them has answered or ended."""

    def __init__(self, number: int, asked: Iterable[Hashable]) -> None:
        self.number = number
        self.uses: list[TicketUse] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting = set(asked)
        self._settle()

    def answered(self, by: Hashable, answer: TicketsUsed) -> None:
        """An answer, or a part of one."""
        if by in self._waiting:
            self.uses += answer.uses
            if not answer.more:
                self.gone(by)

    def gone(self, who: Hashable) -> None:
        """A front end has said all, or will never say anything."""
        self._waiting.discard(who)
        self._settle()

    def _settle(self) -> None:
        if not self._waiting and not self.done.done():
            self.done.set_result(None)
