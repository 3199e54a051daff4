"""The row `backup`: an incremental of a disk of which 1 % has changed, beside a full one."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import run

from mover.backup.repository import Disk, Repository
from mover.backup.taking import Wish, back_up
from mover.bench import tools
from mover.bench.contest import Contender, Contest
from mover.bench.data import MIB, write_random
from mover.bench.exports import qemu_nbd
from mover.bench.row import Bench
from mover.bench.servers import Image, mover
from mover.client import Client

# The disk is so many times as large as its data.
FACTOR = 6
CLUSTER_BYTES = 64 * 1024
BITMAP = "since"
NAME = "bench/disk"


def backup(bench: Bench) -> list[Contest]:
    """Full and incremental backups of one disk, in turns: 1 % of its data is dirty, in clusters all over it."""
    disk = bench.directory / "disk.qcow2"
    dirty = make_disk(disk, bench.size_bytes)
    export = bench.enter(qemu_nbd(bench.directory, disk, "qcow2", read_only=True, bitmap=BITMAP))
    http = bench.enter(mover(bench.directory, [Image("disk", export, FACTOR * bench.size_bytes, bitmap=BITMAP)]))
    repository = Repository(bench.directory / "repository")
    chain = repository.make_disk(NAME)
    client = bench.stack.enter_context(Client(http.url("disk")))
    back_up(chain, client, Wish(incremental=False))
    fresh = bench.directory / "fresh"
    contenders = [
        Contender("full", "back_up(…, Wish(incremental=False))", lambda: _full(fresh, client)),
        Contender("incremental", "back_up(…, Wish(incremental=True))", lambda: _incremental(chain, client)),
    ]
    return [Contest(f"{dirty // MIB} MiB of {bench.size_bytes // MIB} dirty", "s", contenders)]


def make_disk(disk: Path, data_bytes: int) -> int:
    """A qcow2 file with data at its begin and a bitmap in which every 100th cluster of it is dirty; the dirty bytes."""
    raw = disk.with_suffix(".raw")
    write_random(raw, 0, data_bytes)
    with raw.open("r+b") as file:
        file.truncate(FACTOR * data_bytes)
    _run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(disk))
    raw.unlink()
    _run("qemu-img", "bitmap", "--add", "-f", "qcow2", str(disk), BITMAP)
    places = range(0, data_bytes, 100 * CLUSTER_BYTES)
    writes = [word for at in places for word in ("-c", f"write -q -P 1 {at} {CLUSTER_BYTES}")]
    _run("qemu-io", "-f", "qcow2", *writes, str(disk))
    return len(places) * CLUSTER_BYTES


def _full(directory: Path, client: Client) -> float:
    """In a repository of its own, which is removed again."""
    disk = Repository(directory).make_disk(NAME)
    try:
        return _timed(lambda: back_up(disk, client, Wish(incremental=False)))
    finally:
        shutil.rmtree(directory)


def _incremental(disk: Disk, client: Client) -> float:
    """Over the one full backup: the point goes again."""
    seconds = _timed(lambda: back_up(disk, client, Wish(incremental=True)))
    disk.withdraw(disk.points()[1:])
    disk.sweep()
    return seconds


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _run(*command: str) -> None:
    run([tools.path(command[0]), *command[1:]], check=True, capture_output=True)
