"""`mover info`, `extents`, `checksum` and `measure`: what is known of an image without moving it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mover.cli import client_options
from mover.cli.client_options import shown_size
from mover.cli.status import Failed, Status, UsageError

if TYPE_CHECKING:
    from mover.cli.parser import Commands
    from mover.client import Checksum, Client, Extent

INFO = """\
Shows what the server allows for an image, its size, and how much of it is data.

example:
  mover info http://127.0.0.1:54322/images/disk
"""
EXTENTS = """\
Lists an image's extents, one a line: offset, length, what it is.

example:
  mover extents http://127.0.0.1:54322/images/disk --context dirty
"""
CHECKSUM = """\
Prints the checksum of an image, made by its server, or of a local file or block device, made here. The two are equal
where the bytes are. With `--compare`, the image is compared with a file; status 4 if they differ.

example:
  mover checksum http://127.0.0.1:54322/images/disk --compare disk.qcow2
"""
MEASURE = """\
Shows how many bytes a download moves, and how large its file will be.

example:
  mover measure http://127.0.0.1:54322/images/disk --format qcow2
"""

Run = Callable[[argparse.Namespace], int]


def add(commands: Commands) -> None:
    """Adds the four to the subcommands of `mover`."""
    _add(commands, "info", "show what a server says of an image", INFO, _info)
    extents = _add(commands, "extents", "list where an image has data", EXTENTS, _extents)
    extents.add_argument("--context", choices=["zero", "dirty"], default="zero", help="default: %(default)s")
    checksum = _add(commands, "checksum", "print or compare checksums", CHECKSUM, _checksum)
    checksum.add_argument("--algorithm", default="blake2b", help="default: %(default)s")
    checksum.add_argument(
        "--block-size", type=client_options.size, default=4 << 20, metavar="SIZE", help="hashed at a time; default 4MiB"
    )
    checksum.add_argument("--compare", type=Path, metavar="FILE", help="the file that the image should be equal to")
    checksum.add_argument("--format", help="the file's: raw, qcow2, …; default: by its suffix, otherwise raw")
    measure = _add(commands, "measure", "show what a download would take", MEASURE, _measure)
    measure.add_argument("--format", choices=["raw", "qcow2"], default="raw", help="default: %(default)s")


def _add(commands: Commands, name: str, summary: str, description: str, run: Run) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=description)
    what = "the image, as http://host:54322/images/ID"
    parser.add_argument("url", metavar="URL", help=f"{what}; or a local file" if name == "checksum" else what)
    parser.add_argument("--json", action="store_true", help="print JSON")
    client_options.add_connection(parser)
    parser.set_defaults(run=lambda options: _reported(name, run, options))
    return parser


def _reported(name: str, run: Run, options: argparse.Namespace) -> int:
    from mover.client import ClientError

    try:
        return run(options)
    except ClientError as error:
        raise Failed(f"{name}: {error}", client_options.status_of(error), error) from error


def _info(options: argparse.Namespace) -> int:
    with client_options.client(options) as image:
        allowed = image.options()
        extents = image.all_extents()
        facts = {
            "url": image.url,
            "size": extents[-1].end if extents else 0,
            "data": _sum(extents, lambda extent: not extent.zero),
            "zero": _sum(extents, lambda extent: extent.zero),
            "hole": _sum(extents, lambda extent: extent.hole),
            "extents": len(extents),
            "dirty": _dirty(image),
            "features": sorted(allowed.features),
            "max_readers": allowed.max_readers,
            "max_writers": allowed.max_writers,
            "unix_socket": allowed.unix_socket,
            "by_unix_socket": image.by_unix_socket,
        }
    if options.json:
        print(json.dumps(facts))
        return Status.DONE
    dirty = facts["dirty"]
    print(f"size:          {facts['size']} ({shown_size(_int(facts['size']))})")
    print(f"data:          {facts['data']} ({shown_size(_int(facts['data']))}) in {facts['extents']} extents")
    print(f"dirty bitmap:  {'none' if dirty is None else f'{dirty} ({shown_size(_int(dirty))}) changed'}")
    print(f"features:      {', '.join(sorted(allowed.features)) or 'none'}")
    print(f"at once:       {allowed.max_readers} readers, {allowed.max_writers} writers")
    print(f"unix socket:   {allowed.unix_socket or 'none'}{', used' if facts['by_unix_socket'] else ''}")
    return Status.DONE


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value


def _sum(extents: list[Extent], wanted: Callable[[Extent], bool]) -> int:
    return sum(extent.length for extent in extents if wanted(extent))


def _dirty(image: Client) -> int | None:
    """Bytes that changed; None where there is no bitmap."""
    from mover.client import RefusedError

    try:
        return _sum(image.all_extents("dirty"), lambda extent: bool(extent.dirty))
    except RefusedError:
        return None


def _extents(options: argparse.Namespace) -> int:
    with client_options.client(options) as image:
        extents = image.all_extents(options.context)
    if options.json:
        print(json.dumps([_extent(extent) for extent in extents]))
        return Status.DONE
    for extent in extents:
        words = ["zero" if extent.zero else "data"]
        words += ["hole"] if extent.hole else []
        words += [] if extent.dirty is None else ["dirty" if extent.dirty else "clean"]
        print(f"{extent.start:>16} {extent.length:>16} {' '.join(words)}")
    return Status.DONE


def _extent(extent: Extent) -> dict[str, int | bool]:
    facts: dict[str, int | bool] = {"start": extent.start, "length": extent.length, "zero": extent.zero}
    return facts | ({"hole": extent.hole} if extent.dirty is None else {"dirty": extent.dirty})


def _checksum(options: argparse.Namespace) -> int:
    try:
        found = _found_checksum(options)
    except ValueError as error:
        raise UsageError(f"checksum: --algorithm {options.algorithm}: {error}: name another one") from error
    facts = {"algorithm": found.algorithm, "block_size": found.block_size, "checksum": found.checksum}
    print(json.dumps(facts) if options.json else found.checksum)
    return Status.DONE


def _found_checksum(options: argparse.Namespace) -> Checksum:
    """Of a file, of an image, or of both. Raises ClientError, UsageError, ValueError for an unknown algorithm."""
    from mover.client import file_checksum, verify

    how = {"algorithm": options.algorithm, "block_bytes": options.block_size}
    if not options.url.startswith(("http://", "https://")):
        return file_checksum(options.url, **how, image_format=options.format)
    with client_options.client(options) as image:
        if options.compare is None:
            return image.checksum(options.algorithm, options.block_size)
        compared = verify(image, options.compare, **how, image_format=options.format).checksum
    assert compared is not None
    return compared


def _measure(options: argparse.Namespace) -> int:
    from mover.client import measure

    with client_options.client(options) as image:
        found = measure(image.all_extents(), options.format)
    if options.json:
        print(json.dumps(asdict(found)))
        return Status.DONE
    print(f"required size:    {found.required} ({shown_size(found.required)})")
    print(f"fully allocated:  {found.fully_allocated} ({shown_size(found.fully_allocated)})")
    print(f"on the wire:      {found.data} ({shown_size(found.data)} of {shown_size(found.size)})")
    return Status.DONE
