"""The row `client`: Mover's client beside imageio's, both against the same Mover."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from mover.bench import clients, servers
from mover.bench.contest import Contender, Contest
from mover.bench.data import TIB, write_random
from mover.bench.exports import nbdkit, qemu_nbd
from mover.bench.row import Bench
from mover.bench.servers import Image

WORKERS = 4
# The image is so many times as large as its data, which lies in this many runs.
FACTOR = 6
RUNS = 16

# What its users write: the whole of imageio's client in one call, with its defaults.
IMAGEIO = """\
import sys
from ovirt_imageio import client
what, first, second, *form = sys.argv[1:]
if what == "upload":
    client.upload(first, second, None, max_workers={workers})
else:
    client.download(first, second, None, fmt=form[0], max_workers={workers})
"""


def client(bench: Bench) -> list[Contest]:
    """Downloads to raw and qcow2, an upload from raw, and an empty image of 1 TiB."""
    size = FACTOR * bench.size_bytes
    source, target = bench.directory / "client-source", bench.directory / "client-target"
    write_sparse(source, size, bench.size_bytes)
    _make_hole(target, size)
    images = [
        Image("source", bench.enter(qemu_nbd(bench.directory, source, read_only=True)), size),
        Image("target", bench.enter(qemu_nbd(bench.directory, target)), size),
        Image("empty", bench.enter(nbdkit(bench.directory, "memory", str(TIB))), TIB),
    ]
    mover = bench.enter(servers.mover(bench.directory, images))
    copy = bench.directory / "client-copy"

    def contest(case: str, before: Callable[[], object], *command: str) -> Contest:
        ours = [sys.executable, "-m", "mover", command[0], *command[1:3], f"--max-workers={WORKERS}"]
        ours += [f"--format={form}" for form in command[3:]]
        contenders = [_contender("mover", ours, before)]
        if bench.imageio is not None:
            python = str(bench.imageio.parent / "python")
            theirs = [python, "-c", IMAGEIO.format(workers=WORKERS), *command]
            contenders.append(_contender("imageio's client", theirs, before))
        return Contest(case, "s", contenders)

    remove = partial(copy.unlink, missing_ok=True)
    return [
        contest("download to raw", remove, "download", mover.url("source"), str(copy), "raw"),
        contest("download to qcow2", remove, "download", mover.url("source"), str(copy), "qcow2"),
        contest("upload from raw", partial(_make_hole, target, size), "upload", str(source), mover.url("target")),
        contest("download of an empty 1 TiB", remove, "download", mover.url("empty"), str(copy), "raw"),
    ]


def _contender(name: str, command: Sequence[str], before: Callable[[], object]) -> Contender:
    """What is done before is not counted; the start of the client's process is."""

    def run() -> float:
        before()
        return clients.timed(command)[0]

    shown = "mover …" if name == "mover" else "ovirt_imageio.client …"
    return Contender(name, f"{shown}, {WORKERS} workers", run)


def _make_hole(file: Path, size: int) -> None:
    """Empty the file, in place: its server has it open."""
    file.touch(0o600)
    os.truncate(file, 0)
    os.truncate(file, size)


def write_sparse(file: Path, size: int, data_bytes: int) -> None:
    """Make the file one of `size` bytes, of which `data_bytes` are data, in RUNS runs."""
    _make_hole(file, size)
    for index in range(RUNS):
        write_random(file, index * (size // RUNS), data_bytes // RUNS)
