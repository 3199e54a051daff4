"""Tables for people: rich's, as wide as the terminal, or as wide as they need to be where there is none."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mover.cli.status import visible

# Of a pipe or a file: nothing is cut to the width of a screen that is not there.
WIDTH = 1000


def cell(text: str) -> Text:
    """A cell that shows the text as it is: rich would take [b] for markup, a terminal \\x1b for a command."""
    return Text(visible(text))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text to standard output."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    for number, name in enumerate(header):
        # What a row is called by, as an id, is of no use when it is cut: others give their room.
        table.add_column(name, no_wrap=number == 0)
    for row in rows:
        table.add_row(*map(cell, row))
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as text:
        console.print(table)
    print("\n".join(line.rstrip() for line in text.get().splitlines()))
