"""A contest: several contenders at the same task, in turns, and what came of it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Contender:
    """One way to do the task: `run` does it once and returns what was measured, in the contest's unit."""

    name: str
    command: str
    run: Callable[[], float]


@dataclass(frozen=True)
class Contest:
    """Contenders that are compared with each other. `case` tells the contests of one row apart.

    `once`: what is counted does not vary, so a single run is enough.
    """

    case: str
    unit: str
    contenders: Sequence[Contender]
    once: bool = False


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one contender reached, in `unit`. A ratio is its median divided by the other contender's.

    `cold` is its very first run, which is in neither `runs` nor `median`.
    """

    row: str
    contender: str
    runs: list[float]
    median: float
    unit: str
    ratios: dict[str, float]
    case: str = ""
    command: str = ""
    cold: float | None = None


def as_rate(contender: Contender, moved_bytes: int) -> Contender:
    """The same contender, measured in MB/s instead of seconds."""
    return replace(contender, run=lambda: moved_bytes / MEGABYTE / contender.run())


def hold(row: str, contest: Contest, runs: int) -> list[Result]:
    """Let the contenders run in turns (A B C A B C …): one cold round, then `runs` that count."""
    rounds = [[contender.run() for contender in contest.contenders] for _ in range(1 if contest.once else runs + 1)]
    cold, counted = ([None] * len(contest.contenders), rounds) if contest.once else (rounds[0], rounds[1:])
    results = [
        Result(
            row=row,
            contender=contender.name,
            runs=[one_round[index] for one_round in counted],
            median=statistics.median(one_round[index] for one_round in counted),
            unit=contest.unit,
            ratios={},
            case=contest.case,
            command=contender.command,
            cold=cold[index],
        )
        for index, contender in enumerate(contest.contenders)
    ]
    return with_ratios(results)


def with_ratios(results: Sequence[Result]) -> list[Result]:
    """Return the results of one contest with their ratios; there is none to a median of 0."""
    return [
        msgspec.structs.replace(
            result,
            ratios={
                other.contender: result.median / other.median
                for other in results
                if other is not result and other.median
            },
        )
        for result in results
    ]
