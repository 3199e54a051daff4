"""`mover ticket`: tickets of the Mover on this host, by hand."""

from __future__ import annotations

import argparse
import json
import os
from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from config.load import load
from mover.cli import client_options
from mover.cli.client_options import shown_size
from mover.cli.parser import Parser
from mover.cli.status import Failed, Status, UsageError
from mover.cli.ticket_service import TicketService, TicketServiceError

if TYPE_CHECKING:
    from mover.cli.parser import Commands

EPILOG = """\
They speak to the ticket service of `mover serve --ticket-socket PATH`: the one that --socket names, or the settings.

example:
  mover ticket add nbd:unix:/run/vm.sock --ops read
  mover ticket list
"""
ADD = """\
Installs a ticket for an NBD export or a file, and prints its id: clients find the image at /images/ID.

example:
  mover ticket add nbd:unix:/run/vm.sock:exportname=vda --ops write --timeout 86400 --sparse
"""
LIST = """\
Lists all tickets of both control sockets, those that have expired since yesterday, too.

example:
  mover ticket list
"""
SHOW = """\
Shows what is known of a ticket.

example:
  mover ticket show 8f2c4d0e-5b1a-4d7e-9c3f-2a6b8e0d1c4f
"""
EXTEND = """\
Has a ticket expire in so many seconds, unless it is used. It can have expired before; 0 has it expire now.

example:
  mover ticket extend 8f2c4d0e-5b1a-4d7e-9c3f-2a6b8e0d1c4f 86400
"""
CANCEL = """\
Removes a ticket. What is in flight is ended, and nothing is written any more when this returns.

example:
  mover ticket cancel 8f2c4d0e-5b1a-4d7e-9c3f-2a6b8e0d1c4f
"""
# A ticket without a size of its own shows all of the image.
SIZE_MOST = 2**63 - 1
TIMEOUT_S = 3600
COLUMNS = ("id", "state", "ops", "size", "transferred", "requests", "expires in", "from", "transfer id", "url")

ADVICE = {
    400: "correct what is asked for",
    403: "see that you may use the ticket service",
    404: "see mover ticket list",
    409: "cancel it, or wait until it has ended",
}

Run = Callable[[TicketService, argparse.Namespace], int]


def add(commands: Commands) -> None:
    """Adds `ticket` to the subcommands of `mover`."""
    parser = commands.add_parser(
        "ticket", help="install, list, extend and cancel tickets", description="Works on tickets.", epilog=EPILOG
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _add_add(_action(actions, "add", "install a ticket", ADD, _add))
    _action(actions, "list", "list all tickets", LIST, _list)
    _id(_action(actions, "show", "show one", SHOW, _show))
    extend = _id(_action(actions, "extend", "have one live longer", EXTEND, _extend))
    extend.add_argument("timeout", type=_seconds, metavar="SECONDS", help="from now on")
    _id(_action(actions, "cancel", "remove one, and end what is in flight", CANCEL, _cancel))


def _action(actions: Commands, name: str, summary: str, description: str, run: Run) -> Parser:
    parser = actions.add_parser(name, help=summary, description=description)
    parser.add_argument("--socket", metavar="PATH", help="the ticket service's socket; default: serve.ticket_socket")
    parser.add_argument("--config", metavar="FILE", type=Path, help="settings; /etc/mover/mover.toml if it is there")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=lambda options: _run(name, run, options))
    return parser


def _id(parser: Parser) -> Parser:
    parser.add_argument("id", metavar="ID", help="the ticket's, as `mover ticket list` shows it")
    return parser


def _add_add(parser: Parser) -> None:
    parser.add_argument("url", metavar="URL", help="nbd:unix:/PATH, nbd+unix:///?socket=/PATH, file:///PATH, …")
    parser.add_argument("--id", metavar="UUID", help="default: a new one; an older ticket of this id is replaced")
    parser.add_argument("--ops", choices=["read", "write"], default="read", help="write is read as well; default: read")
    parser.add_argument("--size", type=client_options.size, metavar="SIZE", help="show no more of the image, as 6GiB")
    parser.add_argument("--timeout", type=_seconds, default=TIMEOUT_S, metavar="SECONDS", help="default: %(default)s")
    parser.add_argument("--inactivity-timeout", type=_seconds, metavar="SECONDS", help="cut idle clients off; 60")
    parser.add_argument("--transfer-id", metavar="TEXT", help="a name for people")
    parser.add_argument("--filename", metavar="NAME", help="what a browser saves it as")
    parser.add_argument("--sparse", action="store_true", help="zeros may become holes")
    parser.add_argument("--dirty", action="store_true", help="dirty extents are those of the export's bitmap")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="a bearer token to be asked for, on line one")
    parser.add_argument("--subject", metavar="NAME", help="the subject of the client certificate that alone may use it")
    parser.add_argument("--bytes-per-second", type=client_options.size, metavar="SIZE", help="most that it moves")
    parser.add_argument("--requests-most", type=int, metavar="N", help="most requests that move data at once")


def _seconds(text: str) -> int:
    if not text.isdecimal() or len(text) > 10:
        raise ArgumentTypeError(f"{text!r}: a whole number of seconds")
    return int(text)


def _run(name: str, run: Run, options: argparse.Namespace) -> int:
    path = options.socket or load({}, os.environ, options.config).serve.ticket_socket
    if not path:
        raise UsageError(f"ticket {name}: no ticket service is known: name its socket with --socket PATH")
    try:
        return run(TicketService(path), options)
    except TicketServiceError as error:
        status = Status.USAGE if error.status == 400 else Status.FAILED
        advice = ADVICE.get(error.status, "see the service's log")
        raise Failed(f"ticket {name}: {error}: {advice}", status) from error


def _add(service: TicketService, options: argparse.Namespace) -> int:
    ticket_id = options.id or str(uuid4())
    token = client_options.token(options.token_file)
    optional = {
        "inactivity_timeout": options.inactivity_timeout,
        "transfer_id": options.transfer_id,
        "filename": options.filename,
        "token": token,
        "subject": options.subject,
        "bytes_per_second": options.bytes_per_second,
        "requests_most": options.requests_most,
    }
    service.install(
        {
            "uuid": ticket_id,
            "size": SIZE_MOST if options.size is None else options.size,
            "url": options.url,
            "timeout": options.timeout,
            "ops": [options.ops],
            "sparse": options.sparse,
            "dirty": options.dirty,
            **{key: value for key, value in optional.items() if value is not None},
        }
    )
    print(json.dumps(service.ticket(ticket_id)) if options.json else ticket_id)
    return Status.DONE


def _list(service: TicketService, options: argparse.Namespace) -> int:
    tickets = service.tickets()
    if options.json:
        print(json.dumps(tickets))
        return Status.DONE
    from mover.cli.tables import print_table

    print_table(COLUMNS, [_row(ticket) for ticket in tickets])
    return Status.DONE


def _row(ticket: Mapping[str, Any]) -> list[str]:
    moved = ticket.get("transferred")
    return [
        ticket["uuid"],
        _state(ticket),
        "+".join(ticket["ops"]),
        _size(ticket["size"]),
        "-" if moved is None else shown_size(moved),
        str(ticket["requests"]),
        _left(ticket),
        ticket["dialect"],
        ticket.get("transfer_id", "-"),
        ticket["url"],
    ]


def _state(ticket: Mapping[str, Any]) -> str:
    if ticket["canceled"]:
        return "canceled"
    return "expired" if ticket["expired"] else "active" if ticket["active"] else "idle"


def _size(size: int | None) -> str:
    return "-" if size in (None, SIZE_MOST) else shown_size(size or 0)


def _left(ticket: Mapping[str, Any]) -> str:
    """How long a ticket lives if it is not used: the service counts by this host's clock."""
    if ticket["canceled"] or ticket["expired"]:
        return "-"
    return f"{max(0, ticket['expires'] - int(os.times().elapsed))} s"


def _show(service: TicketService, options: argparse.Namespace) -> int:
    ticket = service.ticket(options.id)
    if options.json:
        print(json.dumps(ticket))
        return Status.DONE
    lines = {
        "state": _state(ticket),
        "expires in": _left(ticket),
        "idle": f"{ticket['idle_time']} s",
        "in use by": f"{ticket['requests']} requests, {ticket['connections']} connections",
        "url": ticket["url"],
        "ops": ", ".join(ticket["ops"]) or "none",
        "size": _size(ticket["size"]),
        "transferred": shown_size(ticket["transferred"]) if "transferred" in ticket else "not counted",
        "timeout": f"{ticket['timeout']} s, of an idle client {ticket['inactivity_timeout']} s",
        "sparse": _yes(ticket["sparse"]),
        "dirty": _yes(ticket["dirty"]),
        "token": "required" if ticket["token"] else "none",
        "subject": ticket.get("subject") or "any",
        "limits": _limits(ticket),
        "from": ticket["dialect"],
        "transfer id": ticket.get("transfer_id", "-"),
        "filename": ticket.get("filename", "-"),
    }
    for name, value in lines.items():
        print(f"{name + ':':<13} {value}")
    return Status.DONE


def _limits(ticket: Mapping[str, Any]) -> str:
    rate, requests = ticket.get("bytes_per_second"), ticket.get("requests_most")
    limits = [f"{shown_size(rate)} a second"] if rate else []
    limits += [f"{requests} requests at once"] if requests else []
    return ", ".join(limits) or "the settings'"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _extend(service: TicketService, options: argparse.Namespace) -> int:
    service.extend(options.id, options.timeout)
    if options.json:
        print(json.dumps(service.ticket(options.id)))
    return Status.DONE


def _cancel(service: TicketService, options: argparse.Namespace) -> int:
    service.cancel(options.id)
    if options.json:
        print(json.dumps({"uuid": options.id, "canceled": True}))
    return Status.DONE
