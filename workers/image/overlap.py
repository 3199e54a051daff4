"""Which jobs may be in flight together: overlapping ones never, if one of them writes.

    in flight    |== write A ==|      |-- read B --|
    write C             |====|                          waits for A
    read D           |--|                               waits for A
    write E                 |============|              waits for A, B and C, though C has not started
    read F                                        |--|  starts

A job waits for every earlier one that it conflicts with, waiting or not, so nobody overtakes and nobody starves.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

Token = TypeVar("Token", bound=Hashable)


class TokenMisused(Exception):
    """A token that entered twice, or left without having entered: a bug of ours; nothing has changed."""


class _Hold(Generic[Token]):
    """A range that later jobs may have to wait for; a doubt may have an owner, who does not."""

    __slots__ = ("blocks", "end", "owner", "start")

    def __init__(self, start: int, end: int, owner: Token | None = None) -> None:
        self.start = start
        self.end = end
        self.owner = owner
        self.blocks: list[_Job[Token]] = []


class _Job(_Hold[Token]):
    __slots__ = ("blocked_by", "gone", "token")

    def __init__(self, token: Token, start: int, end: int) -> None:
        super().__init__(start, end)
        self.token = token
        # How many earlier holds it waits for; it has started when there are none.
        self.blocked_by = 0
        self.gone = False

    def owns(self, doubt: _Hold[Token]) -> bool:
        """Whether the doubt is about this job's own command of an earlier life."""
        return doubt.owner == self.token and self.start <= doubt.start and doubt.end <= self.end

    def wait_for(self, holds: Iterable[_Hold[Token]]) -> None:
        for hold in holds:
            if hold.start < self.end and self.start < hold.end:
                hold.blocks.append(self)
                self.blocked_by += 1


class RangeLocks(Generic[Token]):
    """Locks on ranges of one image. Ranges are half-open (offset, length) in bytes.

    They are rounded out to whole blocks, because a server (or the worker) may write an unaligned edge by reading
    the block and writing it back.
    """

    def __init__(self, block_bytes: int) -> None:
        self._block_bytes = block_bytes
        self._reads: dict[Token, _Job[Token]] = {}
        self._writes: dict[Token, _Job[Token]] = {}
        self._doubts: list[_Hold[Token]] = []

    def enter(self, token: Token, offset: int, length: int, writes: bool, again: bool = False) -> bool:
        """True if the job may start now; otherwise a later `leave` or `clear_doubts` returns its token.

        With `again` it passes doubts inside its range that it owns itself: what may still land there are its own bytes.
        O(1) for a read while nobody writes. Raises TokenMisused.
        """
        if token in self._reads or token in self._writes:
            raise TokenMisused(f"{token!r} has entered already")
        job = _Job(token, *self._blocks(offset, length))
        if self._writes:
            job.wait_for(self._writes.values())
        if writes:
            job.wait_for(self._reads.values())
            job.wait_for(doubt for doubt in self._doubts if not (again and job.owns(doubt)))
        (self._writes if writes else self._reads)[token] = job
        return not job.blocked_by

    def leave(self, token: Token) -> list[Token]:
        """The job has ended, or was cancelled before it started; tokens that may start now, in order.

        Raises TokenMisused.
        """
        job = self._reads.pop(token, None) or self._writes.pop(token, None)
        if job is None:
            raise TokenMisused(f"{token!r} has not entered")
        job.gone = True
        return _unblock(job)

    def doubt(self, offset: int, length: int, owner: Token | None = None) -> None:
        """An old command may still write this range: no writer starts in it until `clear_doubts`; readers do.

        `owner` is the token of the job whose command it was, if that is known.
        """
        hold: _Hold[Token] = _Hold(*self._blocks(offset, length), owner)
        for writer in self._writes.values():
            if writer.blocked_by:
                writer.wait_for([hold])
        self._doubts.append(hold)

    def clear_doubts(self) -> list[Token]:
        """Nothing is in doubt any more; tokens that may start now, in order."""
        doubts, self._doubts = self._doubts, []
        return [token for hold in doubts for token in _unblock(hold)]

    def _blocks(self, offset: int, length: int) -> tuple[int, int]:
        """Start and end of the whole blocks that the range touches."""
        block, end = self._block_bytes, offset + length
        return offset - offset % block, end + -end % block


def _unblock(hold: _Hold[Token]) -> list[Token]:
    started = []
    for job in hold.blocks:
        job.blocked_by -= 1
        if not job.blocked_by and not job.gone:
            started.append(job.token)
    return started
