"""A library image's states, and the moves between them: the one table that the registry asks."""

from __future__ import annotations

import enum


class State(enum.StrEnum):
    """Where a library image is in its life. v1 calls FAILED `killed`; the other names are Glance's own."""

    QUEUED = "queued"
    SAVING = "saving"
    UPLOADING = "uploading"  # its data are staged, or are just coming to where staged data wait
    IMPORTING = "importing"
    ACTIVE = "active"
    FAILED = "failed"
    DEACTIVATED = "deactivated"
    PENDING_DELETE = "pending_delete"
    DELETED = "deleted"


# QUEUED ──upload──► SAVING ──published──► ACTIVE ◄──► DEACTIVATED
#   ▲  │                │ ├── given up by v1 ──► FAILED ──sent again through VISOR's view──► SAVING
#   ├──┼── failed, v2 ──┘ │
#   │  ├── staged ──► UPLOADING ──import──► IMPORTING ──published──► ACTIVE
#   │  └── import of what is elsewhere ──────► │
#   └── failed, expired ────┴─────────────────┘
#   all but PENDING_DELETE and DELETED ──delete──► [PENDING_DELETE ──scrubbed──►] DELETED
MOVES: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset(
        {State.SAVING, State.UPLOADING, State.IMPORTING, State.ACTIVE, State.FAILED, State.DELETED}
    ),
    State.SAVING: frozenset({State.QUEUED, State.ACTIVE, State.FAILED, State.DELETED}),
    State.UPLOADING: frozenset({State.UPLOADING, State.QUEUED, State.IMPORTING, State.DELETED}),
    State.IMPORTING: frozenset({State.QUEUED, State.ACTIVE, State.DELETED}),
    State.ACTIVE: frozenset({State.DEACTIVATED, State.PENDING_DELETE, State.DELETED}),
    State.DEACTIVATED: frozenset({State.ACTIVE, State.PENDING_DELETE, State.DELETED}),
    State.FAILED: frozenset({State.SAVING, State.DELETED}),
    State.PENDING_DELETE: frozenset({State.DELETED}),
    State.DELETED: frozenset(),
}

# In these there are bytes to read.
READABLE = frozenset({State.ACTIVE, State.DEACTIVATED})
# In these an image is gone for everybody but the one who asks for deleted ones.
GONE = frozenset({State.PENDING_DELETE, State.DELETED})


class IllegalMove(Exception):
    """A move that the table does not have: a bug of the caller, who changed nothing by it."""

    def __init__(self, old: State, new: State) -> None:
        super().__init__(f"a library image does not go from {old} to {new}")
        self.old = old
        self.new = new


def check_moves(from_states: frozenset[State], to_state: State) -> None:
    """Raise IllegalMove unless each of these moves is in the table."""
    for old in from_states:
        if to_state not in MOVES[old]:
            raise IllegalMove(old, to_state)
