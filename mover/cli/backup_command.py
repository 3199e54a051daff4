"""`mover backup`: its actions and flags."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mover.cli import client_options
from mover.cli.ages import parse_age
from mover.cli.parser import Parser

if TYPE_CHECKING:
    from collections.abc import Callable

    from mover.cli.parser import Commands

EPILOG = """\
A repository is a directory. It holds a chain of qcow2 files for each disk, a full one and changes to it, with a
manifest for each point in time.

example:
  mover backup full http://127.0.0.1:54322/images/vda --repo /backup --name vm1/vda --checkpoint cp1
  mover backup incremental http://127.0.0.1:54322/images/vda --repo /backup --name vm1/vda --bitmap cp1 --checkpoint cp2
  mover backup list --repo /backup
  mover backup restore --repo /backup --name vm1/vda --point 1 vda.qcow2
  mover backup prune --repo /backup --keep 14
"""
FULL = """\
Stores the whole image as it is now. It must not change meanwhile: serve a snapshot, or a fleecing export.

example:
  mover backup full http://127.0.0.1:54322/images/vda --repo /backup --name vm1/vda --checkpoint cp1
"""
INCREMENTAL = """\
Stores what has changed since the newest point in time, as the dirty bitmap says that the server has for the image.
Without a bitmap, or with one that does not begin there, it fails, and says why.

example:
  mover backup incremental http://127.0.0.1:54322/images/vda --repo /backup --name vm1/vda --bitmap cp1 --checkpoint cp2
"""
LIST = """\
Lists the points in time that can be restored.

example:
  mover backup list --repo /backup --name vm1/vda
"""
VERIFY = """\
Reads everything back, and names the file and the range of each byte that is not what it was; status 4 then.

example:
  mover backup verify --repo /backup
"""
RESTORE = """\
Writes a point in time to a file, or into an image on a server. What is written was compared with its digests.

example:
  mover backup restore --repo /backup --name vm1/vda --point 3 vda.qcow2
  mover backup restore --repo /backup --name vm1/vda http://127.0.0.1:54322/images/new-disk
"""
PRUNE = """\
Removes old points in time. The oldest that stays becomes a full one. What is kept can be restored at every instant,
also if this is killed.

example:
  mover backup prune --repo /backup --name vm1/vda --keep 14
  mover backup prune --repo /backup --older-than 30d
"""


def add(commands: Commands) -> None:
    """Adds `backup` to the subcommands of `mover`."""
    parser = commands.add_parser(
        "backup", help="full and incremental backups that restore", description=__doc__, epilog=EPILOG
    )
    parser.description = "Keeps points in time of disks, as qcow2 files in a repository."
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _add_full(_action(actions, "full", "store the whole image", FULL))
    _add_incremental(_action(actions, "incremental", "store what has changed", INCREMENTAL))
    _add_name(_action(actions, "list", "list the points in time", LIST), required=False)
    verify = _action(actions, "verify", "read everything back and compare it", VERIFY)
    _add_name(verify, required=False)
    _add_point(verify, "only the chain of this point")
    _add_restore(_action(actions, "restore", "write a point in time to a file or a server", RESTORE))
    _add_prune(_action(actions, "prune", "remove old points in time", PRUNE))


def _action(actions: Commands, name: str, text: str, description: str) -> Parser:
    # The first paragraph describes, the example comes last, as for the other commands.
    what, _, example = description.partition("\n\n")
    parser = actions.add_parser(name, help=text, description=what, epilog=example)
    parser.add_argument("--repo", metavar="DIR", type=Path, required=True, help="the repository's directory")
    parser.add_argument("--json", action="store_true", help="say what happens as JSON, one object a line")
    parser.set_defaults(run=_run, action=name)
    return parser


def _add_name(parser: Parser, *, required: bool) -> None:
    text = "the disk" if required else "one disk; all of the repository's without it"
    parser.add_argument("--name", metavar="VM/DISK", required=required, help=text)


def _add_point(parser: Parser, text: str) -> None:
    parser.add_argument("--point", metavar="N", type=_from(_number), help=text)


def _add_full(parser: Parser) -> None:
    parser.add_argument("url", metavar="URL", help="the image on its server")
    _add_name(parser, required=True)
    text = "the dirty bitmap that records what changes from now on; kept for the next incremental"
    parser.add_argument("--bitmap", metavar="NAME", help=text)
    parser.add_argument("--checkpoint", metavar="NAME", help="the same, as it is called where checkpoints have names")
    _add_taking(parser)


def _add_taking(parser: Parser) -> None:
    text = "read the point back, and compare it with the server's checksum; status 4 and no point if they differ"
    parser.add_argument("--verify", action="store_true", help=text)
    _add_connection(parser)


def _add_connection(parser: Parser) -> None:
    client_options.add_workers(parser)
    client_options.add_connection(parser)


def _add_incremental(parser: Parser) -> None:
    parser.add_argument("url", metavar="URL", help="the image on its server")
    _add_name(parser, required=True)
    text = "the dirty bitmap that the server lists; must be the one that began at the newest point, where that is known"
    parser.add_argument("--bitmap", metavar="NAME", help=text)
    text = "the bitmap that records what changes from now on; the same one goes on without it"
    parser.add_argument("--checkpoint", metavar="NAME", help=text)
    text = "make a full backup where what has changed is not known"
    parser.add_argument("--allow-full", action="store_true", help=text)
    _add_taking(parser)


def _add_restore(parser: Parser) -> None:
    _add_name(parser, required=True)
    _add_point(parser, "the point in time; the newest without it")
    text = "of a file: raw or qcow2; without it as its name ends, raw if that says nothing"
    parser.add_argument("--format", choices=["raw", "qcow2"], help=text)
    text = "a new file, or an image on a server that is overwritten"
    parser.add_argument("url", metavar="FILE|URL", help=text)
    _add_connection(parser)


def _add_prune(parser: Parser) -> None:
    _add_name(parser, required=False)
    kept = parser.add_mutually_exclusive_group(required=True)
    kept.add_argument("--keep", metavar="N", type=_from(_number), help="keep the newest N points of a disk")
    text = "remove what is older, as in 30d, but never the newest point"
    kept.add_argument("--older-than", metavar="AGE", type=_from(parse_age), help=text)


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r} is no number from 1 on")
    return int(text)


def _from(parse: Callable[[str], int]) -> Callable[[str], int]:
    """The same for argparse, which hides what a ValueError says."""

    def parsed(text: str) -> int:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parsed


def _run(options: argparse.Namespace) -> int:
    from mover.cli.backup_actions import run

    return run(options)
