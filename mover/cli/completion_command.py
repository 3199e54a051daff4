"""`mover completion`: what a shell needs to complete `mover`'s commands and options."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mover.cli.status import Status

if TYPE_CHECKING:
    from mover.cli.parser import Commands, Parser

DESCRIPTION = """\
Prints a script for a shell, which completes commands, options and files.

example:
  mover completion bash > ~/.local/share/bash-completion/completions/mover
  mover completion zsh > ~/.zfunc/_mover
"""


def add(commands: Commands, whole: Parser) -> None:
    """Adds `completion` to the subcommands of `mover`, whose parser is `whole`."""
    parser = commands.add_parser("completion", help="print completion for a shell", description=DESCRIPTION)
    parser.add_argument("shell", choices=["bash", "zsh"], help="which")
    parser.set_defaults(run=lambda options: _completion(options, whole))


def _completion(options: argparse.Namespace, whole: Parser) -> int:
    import shtab

    print(shtab.complete(whole, options.shell))
    return Status.DONE
