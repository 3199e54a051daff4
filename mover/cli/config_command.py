"""`mover config show` and `mover config check`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from config.documentation import commented_toml, example_toml
from config.load import load, load_with_origins
from mover.cli.status import Status

if TYPE_CHECKING:
    from mover.cli.parser import Commands, Parser

EPILOG = """\
The values are those that `mover serve` would use: of the file, of MOVER_SECTION_KEY in the environment, or defaults.

example:
  mover config example > mover.toml
  mover config check --config mover.toml
"""


def add(commands: Commands) -> None:
    """Adds `config` to the subcommands of `mover`."""
    parser = commands.add_parser(
        "config",
        help="show or check the settings",
        description="Shows or checks the settings.",
        epilog=EPILOG,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    show = _action(actions, "show", "print every setting with its documentation, as TOML", "")
    show.set_defaults(run=_show)
    check = _action(actions, "check", "say `ok`, or what is wrong, with status 2", "--config mover.toml")
    check.set_defaults(run=_check)
    example = _action(actions, "example", "print a file to begin with: every setting as a comment", "> mover.toml")
    example.set_defaults(run=_example)
    for action in (show, check):
        action.add_argument(
            "--config", metavar="FILE", type=Path, help="settings; /etc/mover/mover.toml if it is there"
        )


def _action(actions: Commands, name: str, summary: str, more: str) -> Parser:
    example = f"example:\n  mover config {name} {more}".rstrip() + "\n"
    return actions.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=example)


def _show(options: argparse.Namespace) -> int:
    loaded = load_with_origins({}, os.environ, options.config)
    print("\n".join(commented_toml(loaded.settings, loaded.origins)))
    return Status.DONE


def _example(options: argparse.Namespace) -> int:
    print("\n".join(example_toml()))
    return Status.DONE


def _check(options: argparse.Namespace) -> int:
    load({}, os.environ, options.config)
    print("ok")
    return Status.DONE
