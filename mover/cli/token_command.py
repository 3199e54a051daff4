"""`mover token add|list|remove`: who may use the image library."""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from config.load import load
from mover.cli.status import CannotStartError, Failed, Status, UsageError, visible
from mover.library import tokens
from mover.library.tokens import Entry, TokenFileError

if TYPE_CHECKING:
    from config.settings import LibrarySettings
    from mover.cli.parser import Commands, Parser

EPILOG = """\
As soon as there is one token, the library answers its holders only; before, it answers clients on this host, each as
an admin. A token is printed once, by `add`; what is kept is its hash. Changes are in force at once.

example:
  mover token add --user backup --tenant backup
  curl -H "X-Auth-Token: $TOKEN" http://127.0.0.1:54322/v2/images
  mover token remove 3f1c9a52b07d
"""


def add(commands: Commands) -> None:
    """Adds `token` to the subcommands of `mover`."""
    parser = commands.add_parser(
        "token", help="who may use the image library", description="Manages the library's tokens.", epilog=EPILOG
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    new = _action(actions, "add", "make a token and print it", "--user backup --tenant backup")
    new.add_argument("--user", metavar="NAME", required=True, help="who holds it")
    new.add_argument("--tenant", metavar="NAME", help="whose images they work on; `library.default_tenant`")
    new.add_argument(
        "--role", metavar="NAME", action="append", default=[], help="`admin` sees and does everything; may be repeated"
    )
    new.set_defaults(run=_add)
    listing = _action(actions, "list", "show the tokens' ids, and whom they stand for", "--json")
    listing.set_defaults(run=_list)
    gone = _action(actions, "remove", "have a token hold no more", "3f1c9a52b07d")
    gone.add_argument("id", metavar="ID", help="as `mover token list` shows it, or the beginning of it")
    gone.set_defaults(run=_remove)
    for action in (new, listing, gone):
        _add_common(action)


def _action(actions: Commands, name: str, summary: str, more: str) -> Parser:
    example = f"example:\n  mover token {name} {more}\n"
    return actions.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=example)


def _add_common(parser: Parser) -> None:
    parser.add_argument("--config", metavar="FILE", type=Path, help="settings; /etc/mover/mover.toml if it is there")
    parser.add_argument("--state-dir", metavar="DIR", help="as of `mover serve`")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add(options: argparse.Namespace) -> int:
    settings = _settings(options)
    tenant = options.tenant or settings.default_tenant
    for name in (options.user, tenant, *options.role):
        if not name.strip() or len(name) > 255 or not name.isprintable():
            raise UsageError(f"token add: {name!r} is no name: from 1 to 255 characters that can be printed")
    token, entry = tokens.new(options.user, tenant, options.role)
    with _table(Path(settings.token_file)) as (path, entries):
        _write(path, [*entries, entry])
    if options.json:
        print(msgspec.json.encode({"token": token, **_shown(entry)}).decode())
    else:
        print(token)
        print(f"token {entry.id} is {entry.user} of {entry.tenant}; it is shown this once", file=sys.stderr)
    return Status.DONE


def _list(options: argparse.Namespace) -> int:
    entries = _read(Path(_settings(options).token_file)) or []
    if options.json:
        print(msgspec.json.encode([_shown(entry) for entry in entries]).decode())
        return Status.DONE
    for entry in entries:
        print(visible(f"{entry.id}  {entry.user}  {entry.tenant}  {','.join(entry.roles) or '-'}"))
    return Status.DONE


def _remove(options: argparse.Namespace) -> int:
    with _table(Path(_settings(options).token_file)) as (path, entries):
        found = [entry for entry in entries if entry.sha256.startswith(options.id)] if options.id else []
        if len(found) != 1:
            why = "no token has this id" if not found else f"{len(found)} tokens begin so"
            raise Failed(f"token remove: {options.id}: {why}: see mover token list")
        _write(path, [entry for entry in entries if entry not in found])
    return Status.DONE


def _settings(options: argparse.Namespace) -> LibrarySettings:
    flags = {} if options.state_dir is None else {"serve.state_dir": options.state_dir}
    return load(flags, os.environ, options.config).library


@contextmanager
def _table(path: Path) -> Iterator[tuple[Path, list[Entry]]]:
    """The table, and nobody else changes it meanwhile."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _open_lock(path)
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path, _read(path) or []
    finally:
        os.close(lock)


def _open_lock(path: Path) -> int:
    """The lock beside the table; what root makes is the directory's owner's, who must be able to take it, too.

    A link is not followed: whoever owns the directory would say where root makes a file. Raises OSError.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    lock = os.open(path.with_name(f".{path.name}.lock"), flags, tokens.MODE)
    if os.geteuid() == 0 and os.fstat(lock).st_nlink == 1:
        owner = os.stat(path.parent)
        os.fchown(lock, owner.st_uid, owner.st_gid)
    return lock


def _read(path: Path) -> list[Entry] | None:
    try:
        return tokens.read(path)
    except TokenFileError as error:
        raise CannotStartError(f"cannot read the table of tokens: {error}: mend or remove it") from error


def _write(path: Path, entries: list[Entry]) -> None:
    try:
        tokens.write(path, entries)
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> CannotStartError:
    return CannotStartError(f"cannot write the table of tokens {path}: {error.strerror}: mend its permissions")


def _shown(entry: Entry) -> dict[str, object]:
    return {"id": entry.id, "user": entry.user, "tenant": entry.tenant, "roles": entry.roles}
