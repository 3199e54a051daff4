"""Results as a table for people and as JSON for programs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import msgspec

from mover.bench.contest import Result


def as_json(results: Sequence[Result]) -> str:
    """Return a JSON list of {"row", "contender", "runs", "median", "unit", "ratios", …}, one object a result."""
    return msgspec.json.format(msgspec.json.encode(results), indent=2).decode()


def as_text(results: Sequence[Result]) -> str:
    """Return a table for each contest, and below it what each contender ran."""
    contests = itertools.groupby(results, key=lambda result: (result.row, result.case))
    return "\n\n".join(_contest(list(group)) for _, group in contests)


def _contest(results: Sequence[Result]) -> str:
    first = results[0]
    names = [result.contender for result in results]
    heading = f"{first.row}: {first.case}, {first.unit}" if first.case else f"{first.row}: {first.unit}"
    header = ["contender", "median", "least", "most", "cold", *(f"x {name}" for name in names)]
    lines = table([header, *(_cells(result, names) for result in results)])
    commands = [f"  {result.contender} = {result.command}" for result in results if result.command]
    return "\n".join([heading, *lines, *commands])


def _cells(result: Result, names: Sequence[str]) -> list[str]:
    ratios = [f"{result.ratios[name]:.2f}" if name in result.ratios else "-" for name in names]
    cold = "-" if result.cold is None else number(result.cold)
    return [result.contender, number(result.median), number(min(result.runs)), number(max(result.runs)), cold, *ratios]


def number(value: float) -> str:
    """Return `value` with about three digits that say something: 3150, 41.5, 0.83."""
    digits = 0 if abs(value) >= 100 or value == 0 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}"


def table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Return lines with aligned columns: the first to the left, the others to the right."""
    rows = list(rows)
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
