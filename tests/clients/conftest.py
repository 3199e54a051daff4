"""Other people's programs against one Mover with disks to read and to write."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness.mover import Mover
from tests.harness.servers import qemu_nbd
from tests.harness.waiting import PROGRAM_S

KIB = 1024
MIB = 1024 * KIB
DISK_BYTES = 48 * MIB


@dataclass(frozen=True)
class Place:
    """Mover, its room, and two sources with the same bytes: `disk.raw` and `disk.qcow2`."""

    mover: Mover
    room: Path

    def url(self, image: str) -> str:
        """Where an image is, over TCP."""
        return f"http://127.0.0.1:{self.mover.tcp[1]}/images/{image}"


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a program to its end, which must be a good one; what it printed."""
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PROGRAM_S)
    assert done.returncode == 0, f"{command}: {done.stdout} {done.stderr}"
    return done.stdout


def make_disk(path: Path) -> None:
    """Runs of data and holes of many lengths; the first MiB is data, the last one a hole."""
    luck = random.Random(1)
    with path.open("wb") as file:
        file.truncate(DISK_BYTES)
        at = 0
        while at < DISK_BYTES - MIB:
            length = luck.choice((4 * KIB, 64 * KIB, 256 * KIB, MIB))
            file.seek(at)
            file.write(luck.randbytes(length))
            at += length + luck.choice((0, 64 * KIB, 3 * MIB))


def same(room: Path, image: str, image_format: str, other: Path | str, other_format: str) -> None:
    """Both disks have the same bytes, says qemu-img."""
    run("qemu-img", "compare", "-f", image_format, "-F", other_format, str(room / image), str(other))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The disk as raw and as qcow2 with a bitmap, and an empty one of each format to write to; all through qemu-nbd."""
    room = tmp_path_factory.mktemp("place")
    make_disk(room / "disk.raw")
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", room / "disk.raw", room / "disk.qcow2")
    run("qemu-img", "bitmap", "--add", "-f", "qcow2", room / "disk.qcow2", "since")
    run("qemu-io", "-f", "qcow2", "-c", f"write -q -P 9 {7 * MIB} {256 * KIB}", room / "disk.qcow2")
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", room / "disk.qcow2", room / "disk.raw")
    with ExitStack() as stack:
        urls = {}
        for image_format in ("raw", "qcow2"):
            run("qemu-img", "create", "-q", "-f", image_format, room / f"empty.{image_format}", str(DISK_BYTES))
            for name in ("disk", "empty"):
                bitmap = "since" if (name, image_format) == ("disk", "qcow2") else None
                server = qemu_nbd(
                    room, f"{name}-{image_format}", room / f"{name}.{image_format}", image_format=image_format,
                    bitmap=bitmap, read_only=name == "disk",
                )  # fmt: skip
                stack.callback(server.close)
                urls[f"{name}-{image_format}"] = server.start().uri() + (f"&bitmap={bitmap}" if bitmap else "")
        mover = Mover(room, urls)
        stack.callback(mover.close)
        yield Place(mover.start(), room)
