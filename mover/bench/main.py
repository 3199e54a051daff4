"""`mover bench`: Mover beside nbdcopy and ovirt-imageio, each on the same NBD servers, in turns."""

from __future__ import annotations

import argparse
import sys
from argparse import ArgumentTypeError
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from mover.bench import report, tools
from mover.bench.contest import Result, hold
from mover.bench.data import format_size, parse_size, workplace
from mover.bench.errors import BenchError
from mover.bench.row import Bench
from mover.bench.rows import ROWS
from mover.bench.servers import IMAGEIO_VARIABLE, find_imageio
from mover.cli import status
from mover.cli.parser import Parser
from mover.cli.status import Failed, Interrupted, Status
from mover.cli.terminable import terminable

DESCRIPTION = "Measures Mover beside nbdcopy and ovirt-imageio: each on the same NBD servers, in turns."


def main(argv: Sequence[str]) -> int:
    """Run the rows that `argv` names, print what came of them, and return the exit status."""
    options = parse(argv)
    events = sys.stdout if options.json else None
    try:
        with terminable():
            _run(options)
    except KeyboardInterrupt:
        return status.report(Interrupted("bench: interrupted: what it had started is ended"), events)
    except BenchError as error:
        return status.report(Failed(f"bench: {error}", error.status, error), events)
    return Status.DONE


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return rows (all of them if none is named), size in bytes, runs, json; UsageError for wrong usage."""
    rows = "\n".join(f"  {name:<10} {row.title}" for name, row in ROWS.items())
    parser = Parser(prog="mover bench", description=DESCRIPTION, epilog=f"rows:\n{rows}")
    parser.add_argument("rows", nargs="*", metavar="ROW", type=_row, help="see below; all if none is named")
    parser.add_argument("--size", default="1GiB", type=_size, help="of each image's data (default %(default)s)")
    parser.add_argument("--runs", default=5, type=_runs, help="that count, after a cold one (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of tables")
    options = parser.parse_intermixed_args(argv)
    options.rows = options.rows or list(ROWS)
    return options


def _row(text: str) -> str:
    if text not in ROWS:
        raise ArgumentTypeError(f"no row {text!r}: there are {', '.join(ROWS)}")
    return text


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error


def _runs(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r}: at least one run")
    return int(text)


def _run(options: argparse.Namespace) -> None:
    tools.require(tool for row in options.rows for tool in ROWS[row].tools)
    imageio = find_imageio()
    if imageio is None:
        print(f"mover: bench: no ovirt-imageio: `make bench` installs it, or set {IMAGEIO_VARIABLE}", file=sys.stderr)
    results = []
    with workplace(max(ROWS[row].copies for row in options.rows) * options.size) as directory:
        for row in options.rows:
            results += _hold_row(row, options.size, options.runs, directory, imageio, text=not options.json)
    if options.json:
        print(report.as_json(results))


def _hold_row(
    row: str, size_bytes: int, runs: int, directory: Path, imageio: Path | None, *, text: bool
) -> list[Result]:
    """Set up one row, hold its contests, end its servers."""
    with ExitStack() as stack:
        contests = ROWS[row].contests(Bench(size_bytes, runs, directory, imageio, stack))
        results = [result for contest in contests for result in hold(row, contest, runs)]
    if text:
        print(f"{ROWS[row].title}; {format_size(size_bytes)}, {runs} runs after a cold one")
        print(report.as_text(results), flush=True)
        print()
    return results
