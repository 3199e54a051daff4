"""`mover image import`, `export`, `copy`, `jobs`, `cancel`: what the service does with images by itself."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mover.cli.client_options import shown_size
from mover.cli.status import Interrupted, Status

if TYPE_CHECKING:
    from mover.cli.parser import Commands, Parser
    from mover.client.library import Library

Run = Callable[[argparse.Namespace, "Library"], int]
Action = Callable[["Commands", str, str, Run], "Parser"]

DEFAULT_URL = "http://127.0.0.1:54322"
# Between two looks at a job.
LOOK_S = 0.5
# After Ctrl-C: how long the job may take to stop before it is left to itself.
STOP_S = 10.0
ENDED = ("done", "failed", "cancelled")
SUFFIXES = {".qcow2": "qcow2", ".vmdk": "vmdk", ".vdi": "vdi", ".vhd": "vhd", ".vhdx": "vhdx", ".iso": "iso"}
IMAGE = "an id, or a name that only one image has"
LISTED = ("ID", "IMAGE", "WHAT", "STATE", "DONE", "MESSAGE")


def add(actions: Commands, action: Action) -> None:
    """Adds them to the actions of `mover image`."""
    parser = action(actions, "import", "make an image of a disk of the service's host, or of a URL", _import)
    parser.add_argument(
        "source", metavar="SOURCE", help="nbd+unix:///?socket=/PATH, nbd://…, file:///PATH, a ticket; or https://…"
    )
    into = parser.add_mutually_exclusive_group()
    into.add_argument("--name", help="of the new image (default: as the source is named)")
    into.add_argument("--image", metavar="IMAGE", help="one without data; an import that was stopped goes on with it")
    parser.add_argument("--disk-format", help="raw, qcow2, …; default: by the source's suffix, otherwise raw")
    parser.add_argument("--container-format", default="bare", help="default: %(default)s")
    parser.add_argument("--store", action="append", default=[], metavar="STORE", help="where to; may be repeated")
    parser.add_argument("--all-stores", action="store_true", help="to every store")
    parser.add_argument("--no-digests", action="store_true", help="of a disk: hash nothing, which is faster")
    _add_waiting(parser)
    export = action(actions, "export", "write an image onto a disk of the service's host", _export)
    export.add_argument("image", metavar="IMAGE", help=IMAGE)
    export.add_argument("target", metavar="TARGET", help="nbd+unix:///?socket=/PATH, nbd://…, file:///PATH, a ticket")
    _add_waiting(export)
    copy = action(actions, "copy", "copy an image to other stores", _copy)
    copy.add_argument("image", metavar="IMAGE", help=IMAGE)
    to = copy.add_mutually_exclusive_group(required=True)
    to.add_argument("--to", action="append", default=[], metavar="STORE", help="may be repeated")
    to.add_argument("--all-stores", action="store_true", help="to every store that does not have it")
    _add_waiting(copy)
    jobs = action(actions, "jobs", "list the jobs of an image, or of all", _jobs)
    jobs.add_argument("image", metavar="IMAGE", nargs="?", help=f"{IMAGE}; default: all, for admins")
    cancel = action(actions, "cancel", "cancel jobs", _cancel)
    cancel.add_argument("jobs", metavar="JOB", nargs="+", help="ids, as `mover image jobs` lists them")


def _add_waiting(parser: Parser) -> None:
    parser.add_argument("--detach", action="store_true", help="print the job's id, and do not wait for it")


# -- the actions -----------------------------------------------------------------------------------------------


def _import(options: argparse.Namespace, library: Library) -> int:
    from mover.client.library import LibraryRefused

    is_url = urlsplit(options.source).scheme in ("http", "https")
    method: dict[str, Any] = {"name": "web-download", "uri": options.source}
    if not is_url:
        method = {"name": "disk", "source": options.source, "digests": not options.no_digests}
        method["resume"] = options.image is not None
    made = options.image is None
    image = _new_image(options, library) if made else library.find(options.image)
    try:
        job = library.begin_import(image["id"], method, options.store, options.all_stores)
    except LibraryRefused:
        if made:
            library.delete(image["id"])
        raise
    flags = ["--all-stores"] if options.all_stores else _each("--store", options.store)
    flags += ["--no-digests"] if options.no_digests else []
    again = _again(options, "import", options.source, "--image", image["id"], *flags)
    return _attend(options, library, "import", job, image["id"], again, made)


def _new_image(options: argparse.Namespace, library: Library) -> dict[str, Any]:
    parts = urlsplit(options.source)
    file = PurePosixPath(parts.path if parts.path.strip("/") else "disk")
    disk = options.disk_format or SUFFIXES.get(file.suffix.lower(), "raw")
    fields = {"name": options.name or file.name, "disk_format": disk, "container_format": options.container_format}
    image = library.create(fields)
    print(f"mover: image {image['id']} is made", file=sys.stderr)
    return image


def _export(options: argparse.Namespace, library: Library) -> int:
    image = library.find(options.image)
    job = library.begin_export(image["id"], options.target)
    again = _again(options, "export", image["id"], options.target)
    return _attend(options, library, "export", job, image["id"], again)


def _copy(options: argparse.Namespace, library: Library) -> int:
    image = library.find(options.image)
    job = library.begin_import(image["id"], {"name": "copy-image"}, options.to, options.all_stores)
    stores = ["--all-stores"] if options.all_stores else _each("--to", options.to)
    return _attend(options, library, "copy", job, image["id"], _again(options, "copy", image["id"], *stores))


def _again(options: argparse.Namespace, action: str, *words: str) -> str:
    """The command that goes on, to be pasted: of the same service, as the same client."""
    service = [] if options.url == DEFAULT_URL else ["--url", options.url]
    for flag, value in (
        ("--unix-socket", options.unix_socket),
        ("--ca-file", options.ca_file),
        ("--token-file", options.token_file),
    ):
        service += [] if value is None else [flag, str(value)]
    return shlex.join(["mover", "image", action, *words, *service])


def _each(flag: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (flag, value)]


def _jobs(options: argparse.Namespace, library: Library) -> int:
    from mover.cli.tables import print_table

    image_id = None if options.image is None else library.find(options.image)["id"]
    found = list(library.jobs(image_id))
    if options.json:
        print(json.dumps(found, ensure_ascii=False))
        return Status.DONE
    print_table(list(LISTED), [_row(job) for job in found])
    return Status.DONE


def _row(job: dict[str, Any]) -> list[str]:
    total = job["bytes_total"]
    done = f"{shown_size(job['bytes_done'])} of {'?' if total is None else shown_size(total)}"
    request = job["input"].get("import_req")
    what = "export" if request is None else request["method"]["name"]
    return [
        job["id"],
        job["image_id"],
        what,
        job["state"],
        "-" if total is None and not job["bytes_done"] else done,
        job["message"],
    ]


def _cancel(options: argparse.Namespace, library: Library) -> int:
    for job in options.jobs:
        library.cancel(job)
    return Status.DONE


# -- waiting ---------------------------------------------------------------------------------------------------


def _attend(
    options: argparse.Namespace, library: Library, name: str, job: str, image_id: str, again: str, made: bool = False
) -> int:
    """Wait for the job and show how far it is. Ctrl-C has it cancelled. An image `made` for one that fails goes."""
    from mover.client import ClientError

    if options.detach:
        print(json.dumps({"job": job, "image": image_id}) if options.json else job)
        return Status.DONE
    try:
        ended = _watched(library, name, job)
    except KeyboardInterrupt:
        ended = _stopped(library, job)
        if ended["state"] != "done":
            # "cancelled", or "cancelled; what the target has: what to do", which is this command
            state = ended["message"].partition(":")[0] if ended["state"] == "cancelled" else ended["state"]
            said = f"image {name}: interrupted: it is {state}: go on with: {again}"
            raise Interrupted(said) from None
    if ended["state"] == "cancelled":
        raise ClientError(f"job {job}", "it was cancelled by somebody else", f"go on with: {again}")
    if ended["state"] == "failed":
        # "disk failed: WHY: WHAT TO DO"
        why, _, advice = ended["message"].partition(": ")[2].rpartition(": ")
        if made and not _left(ended):
            library.delete(image_id)
        elif name == "import":
            advice += f", with: {again}"
        raise ClientError(f"job {job}", why, advice)
    if options.json:
        print(json.dumps(ended, ensure_ascii=False))
        return Status.DONE
    print(f"mover: image {name}: {image_id}: {shown_size(ended['bytes_done'])}", file=sys.stderr)
    if name == "import":
        print(image_id)
    return Status.DONE


def _left(ended: dict[str, Any]) -> bool:
    """Whether what has come of a job that failed can be gone on with: of a disk alone."""
    return bool(ended["input"]["import_req"]["method"]["name"] == "disk" and ended["bytes_done"])


def _watched(library: Library, name: str, job: str) -> dict[str, Any]:
    from mover.cli import progress
    from mover.client import Progress

    began, first = time.monotonic(), None
    with progress.shown(name, as_json=False, events=sys.stderr) as tell:
        while True:
            now = library.job(job)
            if now["state"] in ENDED:
                return now
            done, size = now["bytes_done"], now["bytes_total"]
            first = done if first is None else first
            phase = "data" if now["state"] == "running" and size is not None else now["message"] or now["state"]
            tell(Progress(phase, size or 0, size or 0, done, first, 0, time.monotonic() - began))
            time.sleep(LOOK_S)


def _stopped(library: Library, job: str) -> dict[str, Any]:
    """Have it cancelled, and wait a moment for its end."""
    from mover.client.library import LibraryRefused

    try:
        library.cancel(job)
    except LibraryRefused:
        pass  # it has just ended
    deadline = time.monotonic() + STOP_S
    while (now := library.job(job))["state"] not in ENDED and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    return now
