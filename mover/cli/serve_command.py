"""`mover serve`: its flags, and what must be there before it starts."""

from __future__ import annotations

import argparse
import os
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from config.documentation import documentation
from config.load import flag_of, load
from mover.cli.status import CannotStartError

if TYPE_CHECKING:
    from mover.cli.parser import Commands

# Settings that have a flag, and the word that stands for the value in the help text.
FLAGS = {
    "serve.listen": "ADDR",
    "serve.port": "N",
    "serve.unix_socket": "PATH",
    "serve.control_socket": "PATH",
    "serve.ticket_socket": "PATH",
    "serve.transfer_dir": "DIR",
    "serve.front_ends": "N",
    "serve.state_dir": "DIR",
    "tls.cert_file": "FILE",
    "tls.key_file": "FILE",
    "log.level": "LEVEL",
    "log.format": "text|json",
}
# Settings that are switched on by a flag without a value.
SWITCHES = ("tls.enabled",)
EPILOG = """\
Every flag is also a setting: in the TOML file, or in the environment as MOVER_SECTION_KEY, like MOVER_SERVE_PORT.
A flag overrides the environment, and that the file. `mover config show` lists them all.

example:
  mover serve --port 0 --image demo=nbd+unix:///?socket=/run/demo.sock
"""


def add(commands: Commands) -> None:
    """Adds `serve` to the subcommands of `mover`."""
    parser = commands.add_parser(
        "serve",
        help="serve NBD exports over HTTP",
        description="Serves NBD exports over HTTP until SIGTERM, which lets requests in flight finish.",
        epilog=EPILOG,
    )
    parser.add_argument("--config", metavar="FILE", type=Path, help="settings; /etc/mover/mover.toml if it is there")
    parser.add_argument(
        "--image",
        metavar="ID=URL",
        action="append",
        default=[],
        help="serve the NBD export at URL as /images/ID, for reading and writing, without expiry; may be repeated",
    )
    for key, metavar in FLAGS.items():
        text = documentation(key).replace("%", "%%")
        parser.add_argument(flag_of(key), dest=key, metavar=metavar, help=text)
    for key in SWITCHES:
        parser.add_argument(flag_of(key), dest=key, action="store_const", const="true", help=documentation(key))
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serves until a signal ends it; the exit status. Raises ConfigError and CannotStartError."""
    given = vars(options)
    flags = {key: given[key] for key in (*FLAGS, *SWITCHES) if given[key] is not None}
    read = partial(load, flags, os.environ, options.config, options.image)
    settings = read()
    _check_libnbd()
    # Late: it brings asyncio and half of Mover, which the checks above do without.
    from mover.serve.main import serve

    return serve(settings, reread=read)


def _check_libnbd() -> None:
    # Looked for, not imported: only workers/nbd_handle.py loads libnbd. PyPI's `nbd` has no libnbdmod.
    if find_spec("libnbdmod") is None:
        raise CannotStartError(
            "serve: libnbd's Python binding is missing: install it with `apt-get install python3-libnbd`, "
            "then link it into Mover's virtual environment, which `make setup` does, or docs/operations.md by hand"
        )
