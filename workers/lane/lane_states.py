"""A front end's lane: what it can do when, and how it ends."""

from __future__ import annotations

from enum import Enum, auto


class LaneState(Enum):
    """What a lane can do now."""

    OPENING = auto()  # no worker yet; jobs wait
    OPEN = auto()
    DETACHED = auto()  # the worker is gone; jobs wait for its successor
    CLOSED = auto()


class LaneEvent(Enum):
    """What changes a lane's state."""

    OPENED = auto()
    WORKER_GONE = auto()
    CLOSE = auto()


STATES: dict[tuple[LaneState, LaneEvent], LaneState] = {
    (LaneState.OPENING, LaneEvent.OPENED): LaneState.OPEN,
    (LaneState.OPENING, LaneEvent.WORKER_GONE): LaneState.OPENING,
    (LaneState.OPENING, LaneEvent.CLOSE): LaneState.CLOSED,
    (LaneState.OPEN, LaneEvent.WORKER_GONE): LaneState.DETACHED,
    (LaneState.OPEN, LaneEvent.CLOSE): LaneState.CLOSED,
    (LaneState.DETACHED, LaneEvent.OPENED): LaneState.OPEN,
    (LaneState.DETACHED, LaneEvent.WORKER_GONE): LaneState.DETACHED,
    (LaneState.DETACHED, LaneEvent.CLOSE): LaneState.CLOSED,
}


class LaneLost(Exception):
    """The lane is closed: its jobs will not be done. `retry_after_s` says when trying again makes sense."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s
