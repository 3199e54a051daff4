"""What a job does in which order: an image's runs of data and zeros, cut into tasks for several workers.

    image     |   zero   |data|zero|      data         |       zero        |data |
    tasks     |        0            |     1    |   2   |         (zero)    |  3  |

A task has at most TASK_BYTES of data and MOST_RUNS runs. With `align` no task begins or ends within a block of so many
bytes, so that each block is hashed by one worker, in order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mover.client.extents import Extent
from mover.client.ranges import Range, Ranges

# Long enough that the server reads ahead, short enough that workers end together.
TASK_BYTES = 32 << 20
LEAST_TASK_BYTES = 4 << 20
TASKS_A_WORKER = 8
MOST_RUNS = 256
# Zeros are made, not moved: one request is enough for so many.
ZEROS_BYTES = 1 << 30
# What a resumed job looks at, to see that it is the same image: at most 4 MiB.
SAMPLES = 64
SAMPLE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Run:
    """A part of the image that is data, or reads as zeros. `have`: its bytes are where they should be already."""

    offset: int
    length: int
    zero: bool = False
    have: bool = False

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.offset + self.length


@dataclass(frozen=True)
class Task:
    """Some runs for one worker, in order."""

    runs: Sequence[Run]


def data_runs(extents: Iterable[Extent], zeros_too: bool = False) -> list[Run]:
    """The runs of data of a listing, or all of its runs; neighbours of one kind are one."""
    runs: list[Run] = []
    for extent in extents:
        if extent.zero and not zeros_too:
            continue
        if runs and runs[-1].end == extent.start and runs[-1].zero == extent.zero:
            runs[-1] = Run(runs[-1].offset, runs[-1].length + extent.length, extent.zero)
        else:
            runs.append(Run(extent.start, extent.length, extent.zero))
    return runs


def known(runs: Iterable[Run], have: Ranges) -> Iterator[Run]:
    """The same, cut where what one has begins or ends."""
    for run in runs:
        for offset, length, there in have.parts(run.offset, run.length):
            yield Run(offset, length, run.zero, there)


def tasks(runs: Iterable[Run], task_bytes: int, align: int = 1) -> Iterator[Task]:
    """The runs as tasks, in order; a run that is too long for one is cut. `task_bytes` is a multiple of `align`."""
    gathered: list[Run] = []
    weight = 0
    for piece in _cut(runs, task_bytes):
        closes = weight + piece.length > task_bytes or len(gathered) >= MOST_RUNS
        if gathered and closes and gathered[-1].end - 1 < piece.offset // align * align:
            yield Task(gathered)
            gathered, weight = [], 0
        gathered.append(piece)
        weight += 0 if piece.zero else piece.length
    if gathered:
        yield Task(gathered)


def _cut(runs: Iterable[Run], most: int) -> Iterator[Run]:
    """Runs cut at every multiple of `most` within them: a task may end there, whatever it is aligned to."""
    of_zeros = ZEROS_BYTES // most * most or most
    for run in runs:
        at = run.offset
        step = of_zeros if run.zero else most
        while at < run.end:
            end = min(run.end, (at // step + 1) * step)
            yield Run(at, end - at, run.zero, run.have)
            at = end


def task_bytes(data_bytes: int, workers: int, align: int = 1) -> int:
    """How large tasks should be, so that every worker has several; a multiple of `align`."""
    share = data_bytes // (workers * TASKS_A_WORKER)
    size = min(max(share, LEAST_TASK_BYTES), TASK_BYTES)
    return max(size // align, 1) * align


def digest(runs: Iterable[Run]) -> str:
    """A fingerprint of where data is, to tell another image, or a changed one, from this."""
    hashed = hashlib.sha256()
    for run in runs:
        hashed.update(f"{run.offset}+{run.length}{'z' if run.zero else 'd'};".encode())
    return hashed.hexdigest()


def samples(have: Ranges, count: int = SAMPLES, length: int = SAMPLE_BYTES) -> list[Range]:
    """At most `count` ranges of `length` bytes or less, spread evenly over what one has, first and last included."""
    total = have.bytes
    picked: list[Range] = []
    places = [index * max(total - 1, 0) // max(count - 1, 1) for index in range(count)] if total else []
    for place in dict.fromkeys(places):
        for offset, run in have:
            if place < run:
                at = max(min(offset + place, offset + run - length), offset)
                picked.append((at, min(length, offset + run - at)))
                break
            place -= run
    return list(dict.fromkeys(picked))
