"""The command `mover`: reads its arguments, runs the subcommand, turns what fails into one line and a status.

Subcommands import what they run only when they run, so that `mover --help` and `mover config` stay quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from config.errors import ConfigError, ConfigUnreadableError
from mover.cli import (
    backup_command,
    completion_command,
    config_command,
    house_command,
    image_command,
    library_command,
    serve_command,
    ticket_command,
    token_command,
    transfer_command,
)
from mover.cli.parser import Parser
from mover.cli.status import CannotStartError, Status, UsageError, complain

DESCRIPTION = "Mover moves disk images between HTTP clients and NBD exports, at the speed of NBD."
EPILOG = """\
example:
  qemu-nbd --socket /run/demo.sock --persistent --shared 8 demo.qcow2 &
  mover serve --image 'demo=nbd+unix:///?socket=/run/demo.sock'
  curl -o copy.raw http://127.0.0.1:54322/images/demo

exit status: 0 done, 1 the job failed, 2 wrong usage or configuration, 3 could not reach or start,
4 verification failed, 130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `mover ARGV` and returns its exit status. Options that print and leave, as --help, raise SystemExit."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        status = _run(arguments)
        sys.stdout.flush()
        return status
    except UsageError as error:
        return complain(str(error), Status.USAGE)
    except ConfigUnreadableError as error:
        return complain(f"configuration: {error}", Status.UNREACHABLE)
    except ConfigError as error:
        return complain(f"configuration: {error}", Status.USAGE)
    except CannotStartError as error:
        return complain(str(error), Status.UNREACHABLE)
    except KeyboardInterrupt:
        return Status.INTERRUPTED
    except BrokenPipeError:
        # Who read the output has left, as `head` does; what is still in the buffer goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Status.FAILED


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["bench"]:
        # Its arguments are its own: argparse would take its options for ours.
        return _bench(arguments[1:])
    options = _parser().parse_args(arguments)
    status: int = options.run(options)
    return status


def _bench(arguments: list[str]) -> int:
    from mover.bench.main import main as bench

    return bench(arguments)


def _parser() -> Parser:
    parser = Parser(
        prog="mover",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    serve_command.add(commands)
    transfer_command.add(commands)
    image_command.add(commands)
    backup_command.add(commands)
    ticket_command.add(commands)
    config_command.add(commands)
    house_command.add(commands)
    library_command.add(commands)
    token_command.add(commands)
    commands.add_parser("bench", help="measure Mover beside nbdcopy and ovirt-imageio", add_help=False)
    completion_command.add(commands, parser)
    return parser
