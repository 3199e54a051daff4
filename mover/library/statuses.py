"""Glance's words for the states of images, the same in both versions of its API."""

from __future__ import annotations

from mover.library.states import State


def status_of(state: State) -> str:
    """The word for a state."""
    return "killed" if state is State.FAILED else str(state)


def state_of(word: str) -> str:
    """The state that a status is; of no status, a word that no image's state is."""
    return State.FAILED if word == "killed" else "" if word == State.FAILED else word
