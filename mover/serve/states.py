"""The states of the children, each as one table: (state, event) to state. What is not in it cannot happen."""

from __future__ import annotations

from enum import Enum, auto


class FrontEndState(Enum):
    """What a front end has shown to be able to do."""

    STARTED = auto()
    GREETED = auto()  # it speaks our version
    READY = auto()  # its listeners answer, and every ticket is in force
    ENDED = auto()


class FrontEndEvent(Enum):
    """What changes a front end's state."""

    HELLO = auto()
    READY = auto()
    END = auto()


FRONT_END_STATES: dict[tuple[FrontEndState, FrontEndEvent], FrontEndState] = {
    (FrontEndState.STARTED, FrontEndEvent.HELLO): FrontEndState.GREETED,
    (FrontEndState.STARTED, FrontEndEvent.END): FrontEndState.ENDED,
    (FrontEndState.GREETED, FrontEndEvent.READY): FrontEndState.READY,
    (FrontEndState.GREETED, FrontEndEvent.END): FrontEndState.ENDED,
    (FrontEndState.READY, FrontEndEvent.END): FrontEndState.ENDED,
}


class WorkerState(Enum):
    """Where the worker of an export is."""

    ABSENT = auto()  # nobody wants one
    RUNNING = auto()
    FENCING = auto()  # it is dead, its connections are being drained
    PAUSED = auto()  # fenced; its successor starts when the backoff is over
    HELD = auto()  # a worker of an earlier service has not left yet


class WorkerEvent(Enum):
    """What changes a worker's state."""

    START = auto()
    DIE = auto()  # also: it could not be started
    PAUSE = auto()  # fenced, and a lane wants a successor
    REST = auto()  # fenced, and nobody wants a successor, or it was given up
    HOLD = auto()  # one is wanted, and must wait


WORKER_STATES: dict[tuple[WorkerState, WorkerEvent], WorkerState] = {
    (WorkerState.ABSENT, WorkerEvent.START): WorkerState.RUNNING,
    (WorkerState.RUNNING, WorkerEvent.DIE): WorkerState.FENCING,
    (WorkerState.FENCING, WorkerEvent.PAUSE): WorkerState.PAUSED,
    (WorkerState.FENCING, WorkerEvent.REST): WorkerState.ABSENT,
    (WorkerState.PAUSED, WorkerEvent.START): WorkerState.RUNNING,
    (WorkerState.PAUSED, WorkerEvent.REST): WorkerState.ABSENT,
    (WorkerState.ABSENT, WorkerEvent.HOLD): WorkerState.HELD,
    (WorkerState.HELD, WorkerEvent.HOLD): WorkerState.HELD,
    (WorkerState.HELD, WorkerEvent.START): WorkerState.RUNNING,
    (WorkerState.HELD, WorkerEvent.REST): WorkerState.ABSENT,
}
