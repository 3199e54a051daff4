"""A job's states, and the moves between them: the one table that the registry asks."""

from __future__ import annotations

import enum


class JobState(enum.StrEnum):
    """Where a job is in its life."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


# PENDING ◄──released, tried again later──┐
#    └──claimed──► RUNNING ───────────────┤
#                                         └──► DONE, FAILED, CANCELLED
# A job that is to be cancelled is claimed like any other: its runner takes back what it has done.
MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.PENDING: frozenset({JobState.RUNNING}),
    JobState.RUNNING: frozenset({JobState.PENDING, JobState.DONE, JobState.FAILED, JobState.CANCELLED}),
    JobState.DONE: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}

LIVE = frozenset({JobState.PENDING, JobState.RUNNING})


class IllegalJobMove(Exception):
    """A move that the table does not have: a bug of the caller, who changed nothing by it."""

    def __init__(self, old: JobState, new: JobState) -> None:
        super().__init__(f"a job does not go from {old} to {new}")
        self.old = old
        self.new = new


def check_move(old: JobState, new: JobState) -> None:
    """Raise IllegalJobMove unless this move is in the table."""
    if new not in MOVES[old]:
        raise IllegalJobMove(old, new)
