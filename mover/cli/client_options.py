"""What every command of the client's side takes, and the Client that it makes of it."""

from __future__ import annotations

import argparse
import re
import sys
from argparse import ArgumentTypeError
from pathlib import Path
from typing import TYPE_CHECKING

from mover.cli.status import Status, UsageError

if TYPE_CHECKING:
    from mover.client import Client, ClientError

UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
RETRY_S = 60.0
MOST_WORKERS = 64
LEAST_BUFFER, MOST_BUFFER = 64 * 1024, 64 << 20
MOST_TOKEN_BYTES = 8192


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Options that say how the server is reached."""
    group = parser.add_argument_group("connection")
    group.add_argument("--ca-file", type=Path, metavar="FILE", help="authorities that vouch for the server (PEM)")
    group.add_argument("--cert-file", type=Path, metavar="FILE", help="the client's own certificate (PEM)")
    group.add_argument("--key-file", type=Path, metavar="FILE", help="its key, if it is not in the same file")
    group.add_argument("--insecure", action="store_true", help="believe any certificate: whoever answers, answers")
    group.add_argument("--token-file", type=Path, metavar="FILE", help="a bearer token, on its first line")
    group.add_argument(
        "--unix-socket", metavar="PATH", default="auto",
        help="reach the server by this socket; `none`: by TCP; default: by its own socket where it is on this host",
    )  # fmt: skip
    group.add_argument(
        "--retry-for", type=_seconds, default=RETRY_S, metavar="SECONDS",
        help="give up when nothing has worked for so long (default %(default)g)",
    )  # fmt: skip


def add_moving(parser: argparse.ArgumentParser) -> None:
    """Options of commands that move an image."""
    group = parser.add_argument_group("moving")
    add_workers(group)
    group.add_argument("--buffer-size", type=_buffer, metavar="SIZE", help="bytes moved at a time, as 1MiB")
    group.add_argument("--bandwidth", type=size, metavar="SIZE", help="bytes a second at most, as 100MiB")
    group.add_argument("--resume", action="store_true", help="go on where the last run of the same job ended")
    group.add_argument("--verify", action="store_true", help="compare checksums with the server's; status 4 if unequal")
    group.add_argument("--json", action="store_true", help="events as JSON, one a line")


def add_workers(parser: argparse._ActionsContainer) -> None:
    """How many connections move an image."""
    text = "connections (default %(default)s)"
    parser.add_argument("--max-workers", type=_workers, default=4, metavar="N", help=text)


def client(options: argparse.Namespace) -> Client:
    """The client that the options describe. Raises UsageError."""
    from mover.client import Client, Tls

    if options.key_file is not None and options.cert_file is None:
        raise UsageError(f"{_command(options)}: --key-file: a key needs its certificate: name it with --cert-file")
    if options.insecure:
        print("mover: warning: --insecure: the server's certificate is not checked", file=sys.stderr)
    unix = options.unix_socket
    try:
        return Client(
            options.url,
            tls=Tls(options.ca_file, options.cert_file, options.key_file, options.insecure),
            token=token(options.token_file),
            unix_socket="auto" if unix == "auto" else None if unix == "none" else Path(unix),
            patience_s=options.retry_for,
        )
    except ValueError as error:
        advice = "give the URL of an image, as http://host:54322/images/ID"
        raise UsageError(f"{_command(options)}: {error}: {advice}") from error


def _command(options: argparse.Namespace) -> str:
    name: str = options.parser.prog.removeprefix("mover ")
    return name


def status_of(error: ClientError) -> Status:
    """The exit status that an error has."""
    from mover.client import UnreachableError, VerificationError
    from mover.client.library import LibraryUnreachable

    if isinstance(error, VerificationError):
        return Status.VERIFICATION
    return Status.UNREACHABLE if isinstance(error, UnreachableError | LibraryUnreachable) else Status.FAILED


def size(text: str) -> int:
    """A number of bytes, at least 1: 1048576, 64KiB, 100MiB."""
    match = re.fullmatch(r"(\d{1,15})(|KiB|MiB|GiB|TiB)", text)
    if match is None or not int(match[1]):
        raise ArgumentTypeError(f"{text!r}: a size is a number with KiB, MiB, GiB or TiB, as 100MiB")
    return int(match[1]) * UNITS[match[2]]


def shown_size(count: float) -> str:
    """The bytes in a unit that leaves few digits: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def token(file: Path | None) -> str | None:
    """The token in a file, None without one. Raises UsageError."""
    if file is None:
        return None
    try:
        with file.open() as text:
            return text.readline(MOST_TOKEN_BYTES).strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"--token-file: {file}: {why}: name a file with a token in it") from error


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86400:
        raise ArgumentTypeError(f"{text!r}: from 0 to 86400 seconds")
    return seconds


def _workers(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_WORKERS:
        raise ArgumentTypeError(f"{text!r}: from 1 to {MOST_WORKERS}")
    return int(text)


def _buffer(text: str) -> int:
    length = size(text)
    if not LEAST_BUFFER <= length <= MOST_BUFFER:
        raise ArgumentTypeError(f"{text!r}: from 64KiB to 64MiB")
    return length
