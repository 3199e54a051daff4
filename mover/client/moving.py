"""The middle of a job: what is to be done, by several workers, while the journal is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mover.client.client import DEFAULT_BLOCK_BYTES
from mover.client.crew import Crew, Worker
from mover.client.keeper import Keeper
from mover.client.plan import Run, Task, task_bytes, tasks


def move(
    runs: Iterable[Run],
    crew: Crew[Task],
    keeper: Keeper,
    worker: Callable[[], Worker[Task]],
    workers: int,
    *,
    verify: bool,
) -> None:
    """Do what is not done yet; to `verify`, data that one has is looked at again. Raises ClientError."""
    align = DEFAULT_BLOCK_BYTES if verify else 1
    needed = [run for run in runs if not run.have or (verify and not run.zero)]
    size = task_bytes(sum(run.length for run in needed if not run.zero), workers, align)
    keeper.start()
    try:
        crew.run(tasks(needed, size, align), worker, workers)
    finally:
        keeper.stop()
