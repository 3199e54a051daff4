"""The command `mover`: reads its arguments, runs the subcommand, turns what fails into one line and a status.

Subcommands import what they run only when they run, so that `mover --help` and `mover config` stay quick.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

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
from mover.cli.status import CannotStartError, Failed, Interrupted, Status, UsageError, report
from mover.cli.streams import give_up_output, have_streams
from mover.cli.terminable import terminable

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
    have_streams()
    try:
        try:
            with _ended_well(arguments):
                try:
                    status = _run(arguments)
                except SystemExit:  # help was printed
                    sys.stdout.flush()
                    raise
                sys.stdout.flush()
                return status
        except Failed as error:
            return report(error, _events(arguments))
    except BrokenPipeError:
        # Who read the output has left, as `head` does.
        give_up_output()
        return Status.FAILED
    except OSError as error:
        give_up_output()
        return report(Failed(_system_said(arguments, error)), None)


def _system_said(arguments: list[str], error: OSError) -> str:
    """What is wrong with a file; one without a name is the output."""
    command = arguments[0] if arguments and not arguments[0].startswith("-") else "command line"
    why = error.strerror or str(error)
    if error.filename is None:
        return f"{command}: writing the output: {why}: see where it goes"
    return f"{command}: {error.filename}: {why}: see that the file can be used, or name another one"


@contextmanager
def _ended_well(arguments: list[str]) -> Iterator[None]:
    """SIGTERM is as Ctrl-C, and both are failures, as what is wrong with the settings is."""
    try:
        if arguments[:1] == ["serve"]:  # it has a way of its own to end
            yield
            return
        with terminable():
            yield
    except ConfigUnreadableError as error:
        raise CannotStartError(f"configuration: {error}") from error
    except ConfigError as error:
        raise UsageError(f"configuration: {error}") from error
    except KeyboardInterrupt:
        raise Interrupted(f"{' '.join(arguments[:1])}: interrupted: run it again") from None


def _events(arguments: list[str]) -> TextIO | None:
    """Where errors go for machines, if that was asked for; standard output may be the image itself."""
    if "--json" not in arguments:
        return None
    return sys.stderr if arguments[0] == "download" and "-" in arguments else sys.stdout


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["bench"]:
        # Its arguments are its own: argparse would take its options for ours.
        return _bench(arguments[1:])
    options, unknown = _parser().parse_known_args(arguments)
    if unknown:
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
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
