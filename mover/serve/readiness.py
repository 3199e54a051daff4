"""Whether every part of the service does its work: what `/readyz` says, and systemd's watchdog."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable

from mover.serve.front_end import FrontEnd
from mover.serve.front_ends import FrontEnds
from mover.serve.image_workers import ImageWorkers
from mover.serve.messages import Activity
from mover.serve.states import FrontEndState

# A front end answers from its loop within milliseconds; one that takes so long keeps its clients waiting, too.
ANSWER_S = 2.0
# A write to a disk that hangs must not keep anybody who asks.
WRITE_S = 2.0


async def activities(front_ends: FrontEnds) -> list[tuple[FrontEnd, Activity | None]]:
    """What every front end says of itself; None of one that does not."""

    async def ask(front_end: FrontEnd) -> Activity | None:
        try:
            async with asyncio.timeout(ANSWER_S):
                return await front_end.activity()
        except TimeoutError:
            return None

    asked = list(front_ends)
    return list(zip(asked, await asyncio.gather(*map(ask, asked)), strict=True))


async def unready(front_ends: FrontEnds, workers: ImageWorkers, state_dir: str) -> list[str]:
    """What is not as it should be, a clause each; nothing when all is well."""
    faults = await silent(front_ends)
    if not workers.spare.can_start():
        faults.append("no worker can be started")
    return [*faults, *await _within(WRITE_S, asyncio.to_thread(_state_dir, state_dir), "the state directory hangs")]


async def silent(front_ends: FrontEnds) -> list[str]:
    """Which front ends do not answer, or are not there."""
    asked = await activities(front_ends)
    faults = [f"front end {one.number} does not answer" for one, activity in asked if activity is None]
    ready = sum(front_end.state is FrontEndState.READY for front_end in front_ends)
    if ready < front_ends.wanted:
        faults.append(f"{ready} of {front_ends.wanted} front ends serve")
    return faults


async def _within(seconds: float, work: Awaitable[list[str]], fault: str) -> list[str]:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        return [fault]


def _state_dir(path: str) -> list[str]:
    """Write to a file that has no name and goes with its descriptor."""
    try:
        fd = os.open(path, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, b"0" * 4096)
        finally:
            os.close(fd)
    except OSError as error:
        return [f"the state directory cannot be written: {(error.strerror or str(error)).lower()}"]
    return []
