"""What tests of the client share: sources with data and holes, and where they are served."""

from __future__ import annotations

import random
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from mover.client import Client
from tests.harness.fixtures import RAM, Images
from tests.harness.mover import Mover
from tests.harness.patterns import MIB, pattern
from tests.harness.waiting import PROGRAM_S

DISK_BYTES = 64 * MIB
PATIENCE_S = 20.0
ODD_SIZES = (0, 1, 12345, 5 * MIB + 17)
TIB = 1 << 40


def url(mover: Mover, image: str = "disk") -> str:
    """Where an image is, over TCP."""
    return f"http://127.0.0.1:{mover.tcp[1]}/images/{image}"


def client(mover: Mover, image: str = "disk", patience_s: float = PATIENCE_S) -> Client:
    """A client of one of its images."""
    return Client(url(mover, image), patience_s=patience_s)


def make_disk(path: Path, size: int = DISK_BYTES, stamp: int = 1, data_bytes: int = MIB) -> Path:
    """Runs of data, of up to `data_bytes`, and holes of many lengths; the last MiB is a hole."""
    luck = random.Random(stamp)
    with path.open("wb") as file:
        file.truncate(size)
        at = 0
        while at < size - MIB:
            length = min(luck.choice((4096, 65536, data_bytes // 4, data_bytes)), size - MIB - at)
            file.seek(at)
            file.write(pattern(1, at, length, stamp))
            at += length + luck.choice((0, 65536, 2 * MIB))
    return path


def qemu_img(*arguments: str | Path) -> str:
    """Run qemu-img to a good end; what it printed."""
    done = subprocess.run(["qemu-img", *arguments], capture_output=True, text=True, timeout=PROGRAM_S)
    assert done.returncode == 0, f"{arguments}: {done.stdout} {done.stderr}"
    return done.stdout


def assert_same_disk(found: Path, source: Path, found_format: str = "raw") -> None:
    """qemu-img finds the same bytes in both, and nothing wrong with the first."""
    if found_format == "qcow2":
        qemu_img("check", "-q", "-f", "qcow2", found)
    qemu_img("compare", "-f", found_format, "-F", "raw", found, source)


def assert_nothing_beside(path: Path) -> None:
    """Neither a part nor a journal is left of the job."""
    assert [name.name for name in path.parent.glob(f".{path.name}*")] == []


@dataclass(frozen=True)
class Served:
    """A Mover that several tests use, with images to read (`source` is the one of "disk") and its room."""

    mover: Mover
    room: Path
    source: Path


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """Images: disk; thick, the same without extents; small; empty, of 1 TiB; odd-N and odd-N-thick of ODD_SIZES."""
    place = RAM if RAM.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="mover-test-", dir=place) as name, ExitStack() as stack:
        room = Path(name)
        images = Images(room, stack)
        source = make_disk(room / "source")
        servers = {
            "disk": images.qemu_nbd(source, read_only=True),
            "thick": images.nbdkit("thick", "file", str(source), filters=["noextents"]),
            "small": images.qemu_nbd(images.pattern("small", 1, 8 * MIB), read_only=True),
            "empty": images.nbdkit("empty", "memory", str(TIB)),
        }
        for size in ODD_SIZES:
            odd = images.pattern(f"odd-{size}", 1, size)
            servers[f"odd-{size}"] = images.nbdkit(f"odd-{size}", "file", str(odd))
            servers[f"odd-{size}-thick"] = images.nbdkit(f"thick-{size}", "file", str(odd), filters=["noextents"])
        (room / "mover").mkdir()
        mover = Mover(room / "mover", servers, front_ends=2)
        stack.callback(mover.close)
        yield Served(mover.start(), room, source)
