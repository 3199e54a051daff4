"""`mover download` and `mover upload`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from mover.cli import client_options, progress
from mover.cli.status import Failed, Interrupted, Status, UsageError
from mover.cli.terminable import terminable

if TYPE_CHECKING:
    from mover.cli.parser import Commands
    from mover.client import Report

DOWNLOAD = """\
Copies an image into a file, which appears under its name when it is complete, or onto a block device, or, with `-`,
to standard output. Zeros are holes there, and are not moved.

example:
  mover download http://127.0.0.1:54322/images/disk disk.qcow2 --verify
"""
UPLOAD = """\
Copies a raw or qcow2 file, or a block device, or, with `-`, what comes by standard input, into an image. Zeros are
made by the server, and are not moved. Everything is flushed at the end.

example:
  mover upload disk.qcow2 http://127.0.0.1:54322/images/disk --verify
"""


def add(commands: Commands) -> None:
    """Adds `download` and `upload` to the subcommands of `mover`."""
    download = commands.add_parser("download", help="copy an image into a file", description=DOWNLOAD)
    download.add_argument("url", metavar="URL", help="the image, as http://host:54322/images/ID")
    download.add_argument("file", metavar="FILE", help="where to; `-` is standard output")
    download.add_argument("--format", choices=["raw", "qcow2"], help="default: by the name's suffix, otherwise raw")
    download.set_defaults(run=_download)
    upload = commands.add_parser("upload", help="copy a file into an image", description=UPLOAD)
    upload.add_argument("file", metavar="FILE", help="what; `-` is standard input, which is raw")
    upload.add_argument("url", metavar="URL", help="the image, as http://host:54322/images/ID")
    upload.add_argument("--format", help="raw, qcow2, or what else qemu reads; default: by the suffix, otherwise raw")
    upload.set_defaults(run=_upload)
    for parser in (download, upload):
        client_options.add_moving(parser)
        client_options.add_connection(parser)


def _download(options: argparse.Namespace) -> int:
    from mover.client import download, stream

    image_format = options.format or ("qcow2" if options.file.endswith(".qcow2") else "raw")
    if options.file == "-":
        _check_stream(options, image_format)
        return _run("download", options, sys.stderr, lambda more: stream.download(_client(options), 1, **more))
    return _run("download", options, sys.stdout, lambda more: download(
        _client(options), Path(options.file), image_format=image_format, resume=options.resume, **more))  # fmt: skip


def _upload(options: argparse.Namespace) -> int:
    from mover.client import stream, upload

    if options.file == "-":
        _check_stream(options, options.format or "raw")
        return _run("upload", options, sys.stdout, lambda more: stream.upload(_client(options), 0, **more))
    return _run("upload", options, sys.stdout, lambda more: upload(
        _client(options), Path(options.file), image_format=options.format, resume=options.resume, **more))  # fmt: skip


_client = client_options.client


def _check_stream(options: argparse.Namespace, image_format: str) -> None:
    if options.resume:
        raise UsageError("--resume: what went through a pipe cannot be gone back to: use a file")
    if image_format != "raw":
        raise UsageError(f"--format {image_format}: a stream is raw: use a file")
    if os.isatty(1) and options.run is _download:
        raise UsageError("-: a terminal is no place for an image: redirect standard output")


def _run(job: str, options: argparse.Namespace, events: TextIO, work: Callable[[Any], Report]) -> int:
    from mover.client import ClientError

    more = {"max_workers": options.max_workers, "bandwidth": options.bandwidth, "verify": options.verify}
    if options.buffer_size is not None:
        more["buffer_bytes"] = options.buffer_size
    try:
        with terminable(), progress.shown(job, as_json=options.json, events=events) as shown:
            report = work(more | {"progress": shown})
    except ClientError as error:
        text = str(error)
        said = text if text.startswith(f"{job} of") else f"{job}: {text}"
        raise Failed(said, client_options.status_of(error), error) from error
    except KeyboardInterrupt:
        again = "run it again" if options.file == "-" else "the same command with --resume goes on from here"
        raise Interrupted(f"{job}: interrupted: {again}") from None
    what = {"download": "standard output", "upload": "standard input"}[job] if options.file == "-" else options.file
    progress.report_done(report, what, as_json=options.json, events=events)
    return Status.DONE
