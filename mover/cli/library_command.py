"""`mover image …`: the image library on the command line."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mover.cli import client_options, library_jobs
from mover.cli import library_view as view
from mover.cli.client_options import shown_size
from mover.cli.status import Failed, Interrupted, Status, UsageError

if TYPE_CHECKING:
    from mover.cli.parser import Commands, Parser
    from mover.client.library import Library

DESCRIPTION = "Works with the images of a library. IMAGE is an id, or a name that only one image has."
EPILOG = """\
example:
  mover image create debian --file debian.qcow2 --property os=linux
  mover image list --status active
  mover image download debian copy.qcow2
  mover image import 'nbd+unix:///?socket=/run/vm.nbd' --name vm
"""
DEFAULT_URL = library_jobs.DEFAULT_URL
EXAMPLES = {
    "list": "list --status active --sort created_at:desc",
    "create": "create debian --file debian.qcow2 --property os=linux",
    "upload": "upload debian debian.qcow2 --resume",
    "download": "download debian copy.qcow2",
    "set": "set debian --visibility public --tag stable",
    "import": "import 'nbd+unix:///?socket=/run/vm.nbd' --name vm",
    "export": "export vm 'nbd+unix:///?socket=/run/new.nbd'",
    "copy": "copy vm --to cellar",
    "jobs": "jobs vm",
    "cancel": "cancel 5b591808-5246-4211-88ab-f009d1147588",
    "stores": "stores",
    "show": "show debian --json",
    "delete": "delete debian",
    "share": "share debian acme",
}
TOKEN_VARIABLE = "OS_TOKEN"
SUFFIXES = library_jobs.SUFFIXES
VISIBILITY = ["public", "community", "shared", "private"]
IMAGE = library_jobs.IMAGE
LISTED = ("id", "name", "status", "size", "disk_format", "visibility", "owner")

Run = Callable[[argparse.Namespace, "Library"], int]


def add(commands: Commands) -> None:
    """Adds `image` to the subcommands of `mover`."""
    parser = commands.add_parser(
        "image", help="list, upload and download images of the library", description=DESCRIPTION, epilog=EPILOG
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _add_list(actions)
    _add_create(actions)
    _add_data(actions)
    _add_set(actions)
    library_jobs.add(actions, _action)
    _action(actions, "stores", "list where the data of images can be", _stores)
    show = _action(actions, "show", "show all that is known of an image", _show)
    show.add_argument("image", metavar="IMAGE", help=IMAGE)
    delete = _action(actions, "delete", "delete images, with their data", _delete)
    delete.add_argument("images", metavar="IMAGE", nargs="+", help="ids, or names that only one image has each")
    share = _action(actions, "share", "offer an image to a tenant, or answer an offer", _share)
    share.add_argument("image", metavar="IMAGE", help=IMAGE)
    share.add_argument("tenant", metavar="TENANT", nargs="?", help="left out: show whom it is shared with")
    what = share.add_mutually_exclusive_group()
    for answer, text in (
        ("remove", "offer it to TENANT no more"),
        ("accept", "as TENANT, have it in one's own lists"),
        ("reject", "as TENANT, do not"),
    ):
        what.add_argument(f"--{answer}", dest="answer", action="store_const", const=answer, help=text)


def _action(actions: Commands, name: str, summary: str, run: Run) -> Parser:
    example = f"example:\n  mover image {EXAMPLES[name]}\n"
    parser = actions.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=example)
    parser.add_argument("--url", default=DEFAULT_URL, help="of the service (default %(default)s)")
    parser.add_argument("--unix-socket", type=Path, metavar="PATH", help="reach the service by this socket")
    parser.add_argument("--ca-file", type=Path, metavar="FILE", help="authorities that vouch for the server (PEM)")
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help=f"a token, on its first line; else ${TOKEN_VARIABLE}, or none"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=lambda options: _reported(name, run, options))
    return parser


def _add_list(actions: Commands) -> None:
    parser = _action(actions, "list", "list images", _list)
    for name in ("name", "status", "visibility", "owner", "disk-format"):
        parser.add_argument(f"--{name}", help=f"only those of this {name.replace('-', ' ')}")
    parser.add_argument("--tag", action="append", default=[], help="only those with this tag; may be repeated")
    _add_properties(parser, "only those with this property; may be repeated")
    parser.add_argument("--sort", default="name:asc", metavar="KEY[:asc|desc]", help="default: %(default)s")
    parser.add_argument("--limit", type=_whole, metavar="N", help="so many at most; default: all")


def _add_create(actions: Commands) -> None:
    parser = _action(actions, "create", "make an image, with its data if a file is given", _create)
    parser.add_argument("name", metavar="NAME", help="of the new image; need not be the only one of this name")
    parser.add_argument("--file", type=Path, help="its data; default: none, `mover image upload` sends them later")
    parser.add_argument("--id", help="a UUID; default: a new one")
    parser.add_argument("--disk-format", help="raw, qcow2, …; default: by the file's suffix, otherwise raw")
    parser.add_argument("--container-format", default="bare", help="default: %(default)s")
    _add_needs(parser, "0")
    parser.add_argument("--protected", action="store_true", help="it cannot be deleted until this is taken back")
    parser.add_argument("--visibility", choices=VISIBILITY, help="who may see it; default: shared, with nobody yet")
    parser.add_argument("--tag", action="append", default=[], help="may be repeated")
    _add_properties(parser, "may be repeated")


def _add_data(actions: Commands) -> None:
    upload = _action(actions, "upload", "send the data of an image that has none", _upload)
    upload.add_argument("image", metavar="IMAGE", help=IMAGE)
    upload.add_argument("file", metavar="FILE", type=Path, help="sent as it is, of whatever format")
    upload.add_argument("--resume", action="store_true", help="go on where an upload broke off")
    download = _action(actions, "download", "copy an image's data to a file, and compare its hash", _download)
    download.add_argument("image", metavar="IMAGE", help=IMAGE)
    download.add_argument("file", metavar="FILE", type=Path, help="where to; it appears when it is complete")
    download.add_argument("--resume", action="store_true", help="go on with FILE.part")


def _add_set(actions: Commands) -> None:
    parser = _action(actions, "set", "change what is known of an image", _set)
    parser.add_argument("image", metavar="IMAGE", help=IMAGE)
    parser.add_argument("--name", help="its new name")
    parser.add_argument("--visibility", choices=VISIBILITY, help="who may see it")
    _add_needs(parser, "as it is")
    parser.add_argument("--protected", action=argparse.BooleanOptionalAction, help="whether it cannot be deleted")
    parser.add_argument("--hidden", action=argparse.BooleanOptionalAction, help="whether lists leave it out")
    parser.add_argument("--tag", action="append", help="all its tags; may be repeated")
    _add_properties(parser, "may be repeated")
    parser.add_argument("--remove-property", action="append", default=[], metavar="KEY", help="may be repeated")


def _add_needs(parser: Parser, default: str) -> None:
    for name, unit in (("disk", "GB"), ("ram", "MB")):
        text = f"what a machine of it must have at least, in {unit}; default: {default}"
        parser.add_argument(f"--min-{name}", type=_whole, metavar=unit, help=text)


def _add_properties(parser: Parser, text: str) -> None:
    parser.add_argument("--property", action="append", default=[], type=_property, metavar="KEY=VALUE", help=text)


def _whole(text: str) -> int:
    if not text.isdecimal() or len(text) > 10:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number")
    return int(text)


def _property(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: a property is KEY=VALUE")
    return key, value


# -- the actions -----------------------------------------------------------------------------------------------


def _reported(name: str, run: Run, options: argparse.Namespace) -> int:
    from mover.client import ClientError

    try:
        return run(options, _library(options))
    except ClientError as error:
        raise Failed(f"image {name}: {error}", client_options.status_of(error), error) from error
    except KeyboardInterrupt:
        raise Interrupted(f"image {name}: interrupted: run it again") from None


def _library(options: argparse.Namespace) -> Library:
    from mover.client.library import Library

    token = client_options.token(options.token_file) or os.environ.get(TOKEN_VARIABLE)
    try:
        return Library(options.url, token, options.unix_socket, options.ca_file)
    except OSError as error:  # ssl.SSLError is one
        why = f"{options.ca_file}: {error.strerror or error}"
        raise UsageError(f"image: --ca-file: {why}: name a file of certificates (PEM)") from error
    except ValueError as error:
        raise UsageError(f"image: --url: {error}: give it as {DEFAULT_URL}") from error


def _list(options: argparse.Namespace, library: Library) -> int:
    from mover.cli.tables import print_table

    wanted = {"name": options.name, "status": options.status, "visibility": options.visibility}
    wanted |= {"owner": options.owner, "disk_format": options.disk_format, "sort": options.sort}
    filters = [(name, value) for name, value in wanted.items() if value is not None]
    filters += [("tag", tag) for tag in options.tag] + options.property
    images = list(library.images(filters, options.limit))
    if options.json:
        return view.print_json(images)
    rows = [[view.shown(name, image[name]) for name in LISTED] for image in images]
    print_table([name.replace("_", " ").upper() for name in LISTED], rows)
    return Status.DONE


def _show(options: argparse.Namespace, library: Library) -> int:
    return view.print_image(options, library.find(options.image))


def _create(options: argparse.Namespace, library: Library) -> int:
    disk = options.disk_format
    if disk is None:
        disk = SUFFIXES.get(options.file.suffix.lower(), "raw") if options.file is not None else "raw"
    fields: dict[str, Any] = {"name": options.name, "disk_format": disk, "tags": options.tag}
    fields |= {"container_format": options.container_format, "protected": options.protected, **dict(options.property)}
    for name in ("id", "min_disk", "min_ram", "visibility"):
        if getattr(options, name) is not None:
            fields[name] = getattr(options, name)
    if options.file is None:
        return view.print_image(options, library.create(fields))
    with _opened("create: --file", options.file) as file:
        image = library.create(fields)
        print(f"mover: image {image['id']} is made", file=sys.stderr)
        return view.print_image(options, _send_first(library, image, file, options.file))


def _send_first(library: Library, image: dict[str, Any], file: BinaryIO, path: Path) -> dict[str, Any]:
    """The data of an image that was made for them: it goes again if nothing of them has been kept."""
    from mover.client.library import LibraryRefused

    try:
        return _send(library, image, file, 0)
    except KeyboardInterrupt:
        raise _interrupted("create", f"mover image upload --resume {image['id']} {shlex.quote(str(path))}") from None
    except LibraryRefused:
        with contextlib.suppress(LibraryRefused):  # what went wrong first is what is said
            if not library.received(image["id"]):
                library.delete(image["id"])
        raise


def _upload(options: argparse.Namespace, library: Library) -> int:
    with _opened("upload:", options.file) as file:
        image = library.find(options.image)
        offset = library.received(image["id"]) if options.resume else 0
        try:
            return view.print_image(options, _send(library, image, file, offset))
        except KeyboardInterrupt:
            raise _interrupted("upload", "the same command, with --resume") from None


def _send(library: Library, image: dict[str, Any], file: BinaryIO, offset: int) -> dict[str, Any]:
    with view.moving("upload", os.fstat(file.fileno()).st_size, offset) as moved:
        library.upload(image["id"], file, offset, moved)
    return library.show(image["id"])


@contextlib.contextmanager
def _opened(what: str, path: Path) -> Iterator[BinaryIO]:
    """The file, before anything is done with the library. Raises UsageError."""
    if not path.is_file():
        raise UsageError(f"image {what} {path}: {'it is no file' if path.exists() else 'there is no such file'}")
    try:
        file = path.open("rb")
    except OSError as error:
        raise UsageError(f"image {what} {path}: {error.strerror}: name a file that can be read") from error
    with file:
        yield file


def _interrupted(name: str, again: str) -> Interrupted:
    return Interrupted(f"image {name}: interrupted: go on with: {again}")


def _download(options: argparse.Namespace, library: Library) -> int:
    image = library.find(options.image)
    try:
        with view.moving("download", image["size"] or 0, 0) as moved:
            checked = library.download(image, options.file, options.resume, moved)
    except KeyboardInterrupt:
        raise _interrupted("download", "the same command, with --resume") from None
    if options.json:
        return view.print_json(
            {"id": image["id"], "file": str(options.file), "size": image["size"], "verified": checked}
        )
    print(f"mover: {options.file}: {shown_size(image['size'])}, verified, {checked[:40]}…", file=sys.stderr)
    return Status.DONE


def _set(options: argparse.Namespace, library: Library) -> int:
    image = library.find(options.image)
    wanted = {"name": options.name, "visibility": options.visibility, "min_disk": options.min_disk}
    wanted |= {"min_ram": options.min_ram, "protected": options.protected, "os_hidden": options.hidden}
    wanted |= {"tags": options.tag, **dict(options.property)}
    steps = [_step("add", name, value) for name, value in wanted.items() if value is not None]
    steps += [_step("remove", name) for name in options.remove_property]
    return view.print_image(options, library.change(image["id"], steps))


def _step(op: str, name: str, value: object = None) -> dict[str, object]:
    path = "/" + name.replace("~", "~0").replace("/", "~1")
    return {"op": op, "path": path} | ({} if op == "remove" else {"value": value})


def _delete(options: argparse.Namespace, library: Library) -> int:
    for name in options.images:
        library.delete(library.find(name)["id"])
    return Status.DONE


def _share(options: argparse.Namespace, library: Library) -> int:
    image_id = library.find(options.image)["id"]
    if options.tenant is None:
        return view.print_members(options, library.members(image_id))
    match options.answer:
        case "remove":
            library.unshare(image_id, options.tenant)
        case "accept" | "reject":
            library.answer_offer(image_id, options.tenant, f"{options.answer}ed")
        case _:
            library.share(image_id, options.tenant)
    return Status.DONE


def _stores(options: argparse.Namespace, library: Library) -> int:
    return view.print_stores(options, library.stores())
