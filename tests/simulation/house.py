"""What a schedule is about: the disk and its server, and what may be lost."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from workers.image.plan import Limits
from workers.lane.protocol import ImageFacts


class Loss(Enum):
    """What may be lost at a point."""

    WORKER = auto()
    FRONT_END = auto()
    OTHER_FRONT_END = auto()
    SERVER = auto()
    SERVER_KEEPS_CACHE = auto()
    WORKER_AND_SERVER = auto()
    CONNECTION = auto()
    CLIENT = auto()
    REPLY_TO_FENCE = auto()  # the next fence ends by its deadline


@dataclass(frozen=True)
class House:
    """What the schedules of one test share. Sizes in bytes."""

    local: bool = True
    size: int = 8
    block: int = 1
    most: int = 4
    can_zero: bool = True
    connections: int = 1
    # What the server has left of a connection that is cut, it applies only in each so-manyth step.
    laziness: int = 1

    def limits(self) -> Limits:
        multi = self.connections > 1
        return Limits(ImageFacts(self.size, False, True, self.can_zero, False, multi, self.block, []), self.most)
