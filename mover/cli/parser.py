"""The argument parser of `mover` and its subcommands: argparse, with the house's errors and help."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, NoReturn

from mover.cli.status import UsageError


class Parser(argparse.ArgumentParser):
    """argparse, with wrong usage as an exception of one line instead of the whole usage text and an exit."""

    # Any: argparse passes arguments of its own on, other ones with each release.
    def __init__(self, **arguments: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **arguments)
        # A subcommand's takes the place of the whole one's: who does not know an argument says so by its own name.
        self.set_defaults(parser=self)

    def error(self, message: str) -> NoReturn:
        where = self.prog.removeprefix("mover").strip() or "command line"
        raise UsageError(f"{where}: {message}: see {self.prog} --help")


if TYPE_CHECKING:
    # What `add_subparsers` returns; argparse has no public name for it.
    Commands = argparse._SubParsersAction[Parser]
