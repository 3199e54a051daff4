"""What the processes take of the host: memory and descriptors, by role."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from dataclasses import dataclass

from mover.serve.front_ends import FrontEnds
from mover.serve.image_workers import ImageWorkers

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Taken:
    """By the processes of one role."""

    count: int = 0
    resident_bytes: int = 0
    descriptors: int = 0


async def memory_by_role(front_ends: FrontEnds, workers: ImageWorkers) -> dict[str, Taken]:
    """Of `supervisor`, `front_end` and `worker`; a thousand processes take 50 ms, so it is done in a thread."""
    pids = {
        "supervisor": [os.getpid()],
        "front_end": [one.pid for one in front_ends],
        "worker": [one.pid for one in workers if one.pid is not None],
    }
    return await asyncio.to_thread(lambda: {role: _taken(one) for role, one in pids.items()})


def _taken(pids: Iterable[int]) -> Taken:
    taken = Taken()
    for pid in pids:
        try:
            with open(f"/proc/{pid}/statm", "rb") as statm:
                resident = int(statm.read().split()[1])
            descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended
        taken.count += 1
        taken.resident_bytes += resident * _PAGE_BYTES
        taken.descriptors += descriptors
    return taken
