"""The lanes that front ends hold open, and the arena memory they take. Rules, no I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from config.export import Export
from mover.serve.messages import ToFrontEnd


class FrontEndPort(Protocol):
    """A front end, as far as lanes are concerned."""

    @property
    def number(self) -> int:
        """Which one it is, from 1; its successor after a death has the same number."""

    def send(self, message: ToFrontEnd, fds: Sequence[int] = ()) -> None:
        """Send it a message with duplicates of `fds`; nothing happens if it is gone."""


@dataclass(frozen=True, eq=False, slots=True)
class Lane:
    """A lane that a front end wants attached to the worker of `export`; `number` is the front end's name for it."""

    front_end: FrontEndPort
    number: int
    export: Export
    arena_bytes: int


class LaneBook:
    """Every open lane, by front end and number; together their arenas keep below `limit_bytes`."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.arena_bytes = 0
        self._lanes: dict[tuple[FrontEndPort, int], Lane] = {}

    def __iter__(self) -> Iterator[Lane]:
        return iter(list(self._lanes.values()))

    def has_room(self, arena_bytes: int) -> bool:
        """Whether an arena of this size keeps within the host-wide limit."""
        return self.arena_bytes + arena_bytes <= self.limit_bytes

    def get(self, front_end: FrontEndPort, number: int) -> Lane | None:
        """The open lane of this number, if there is one."""
        return self._lanes.get((front_end, number))

    def add(self, lane: Lane) -> None:
        """The lane is open from now on. Raises ValueError if the front end has one of this number."""
        key = (lane.front_end, lane.number)
        if key in self._lanes:
            raise ValueError(f"lane {lane.number} of front end {lane.front_end.number} is open already")
        self._lanes[key] = lane
        self.arena_bytes += lane.arena_bytes

    def remove(self, lane: Lane) -> None:
        """The lane is closed; its arena no longer counts."""
        if self._lanes.pop((lane.front_end, lane.number), None) is not None:
            self.arena_bytes -= lane.arena_bytes

    def of_export(self, key: str) -> list[Lane]:
        """The open lanes to the worker of the export with this key, oldest first."""
        return [lane for lane in self._lanes.values() if lane.export.key == key]

    def of_front_end(self, front_end: FrontEndPort) -> list[Lane]:
        """The open lanes of this front end, oldest first."""
        return [lane for lane in self._lanes.values() if lane.front_end is front_end]
