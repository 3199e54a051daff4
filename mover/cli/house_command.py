"""`mover status` and `mover top`: a running service on one screen, once and live."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mover.cli.status import Status, UsageError

if TYPE_CHECKING:
    from mover.cli.house import Look
    from mover.cli.parser import Commands, Parser

EPILOG = """\
The service is asked by its Unix socket: --socket, or serve.unix_socket of its settings.

example:
"""
EXAMPLES = {"status": "mover status --socket /run/mover/mover.sock --json", "top": "mover top"}


def add(commands: Commands) -> None:
    """Adds `status` and `top` to the subcommands of `mover`."""
    status = _parser(commands, "status", "show what a running service does, with rates; status 1 if it is not ready")
    status.add_argument("--json", action="store_true", help="as JSON")
    status.set_defaults(run=_status)
    top = _parser(commands, "top", "show it live; q or Ctrl-C ends it")
    top.add_argument("--once", action="store_true", help="one screen, and no more; also where there is no terminal")
    top.set_defaults(run=_top)


def _parser(commands: Commands, name: str, text: str) -> Parser:
    parser = commands.add_parser(
        name, help=text, description=f"{text.capitalize()}.", epilog=f"{EPILOG}  {EXAMPLES[name]}\n"
    )
    parser.add_argument("--socket", metavar="PATH", help="the service's Unix socket")
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="its settings; /etc/mover/mover.toml if it is there"
    )
    parser.add_argument(
        "--interval", metavar="SECONDS", type=_seconds, default=1.0, help="between two looks (default %(default)g)"
    )
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.1 <= seconds <= 3600:
        raise ValueError
    return seconds


def _socket(options: argparse.Namespace) -> str:
    from config.load import load

    path: str = options.socket or load({}, os.environ, options.config).serve.unix_socket
    if not path:
        raise UsageError("status: the settings name no Unix socket (serve.unix_socket): give one with --socket")
    return path


def _status(options: argparse.Namespace) -> int:
    found = _two_looks(_socket(options), options.interval)
    if options.json:
        print(json.dumps({**found.status, "worker_rows": found.workers}))
    else:
        _print(found)
    return Status.FAILED if found.status["faults"] else Status.DONE


def _two_looks(path: str, interval_s: float) -> Look:
    from mover.cli.house import look, with_rates

    before = look(path)
    time.sleep(interval_s)
    return with_rates(before, look(path))


def _print(found: Look) -> None:
    from rich.console import Console

    from mover.cli.house_view import screen
    from mover.cli.tables import WIDTH

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    console.print(screen(found))


def _top(options: argparse.Namespace) -> int:
    path = _socket(options)
    if options.once or not (sys.stdout.isatty() and sys.stdin.isatty()):
        _print(_two_looks(path, options.interval))
        return Status.DONE
    from mover.cli.live import keep_showing

    with contextlib.suppress(KeyboardInterrupt):
        keep_showing(path, options.interval)
    return Status.DONE
