"""What the tests of backups share: a repository, an image in memory, and chains of points with what they hold."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mover.backup.repository import Disk, Repository
from mover.backup.restoring import restore_to_file
from mover.backup.taking import Wish, back_up
from tests.harness.memory_image import MemoryImage

KIB = 1024


@dataclass
class Chain:
    """A disk with its points, and what each of them must hold."""

    disk: Disk
    image: MemoryImage
    held: dict[int, bytes] = field(default_factory=dict)

    def take(self, *, incremental: bool = True) -> int:
        """Back the image up as it is, and have its bitmap begin anew; the point's number."""
        made = back_up(self.disk, self.image.as_client(), Wish(incremental=incremental)).manifest
        self.image.begin()
        self.held[made.point] = bytes(self.image.data)
        return made.point

    def points(self) -> list[int]:
        """The numbers of the points that are listed."""
        return [manifest.point for manifest in self.disk.points()]

    def assert_restores(self, room: Path) -> None:
        """Every point that is listed restores, byte for byte."""
        for point in self.points():
            self.assert_point_restores(point, room)

    def assert_point_restores(self, point: int, room: Path) -> None:
        """This point restores, byte for byte."""
        target = room / f"restored-{point}.raw"
        restore_to_file(self.disk, point, target, "raw")
        assert target.read_bytes() == self.held[point], f"point {point}"
        target.unlink()


@pytest.fixture
def chain(room: Path) -> Chain:
    """A disk without points, and an image of 1 MiB and a bit, with something on it."""
    image = MemoryImage(1024 * KIB + 512)
    image.write(100 * KIB, b"first" * 40_000)
    return Chain(Repository(room / "repo").make_disk("vm/vda"), image)


def change(image: MemoryImage, chance: random.Random, stamp: int, writes: int = 4) -> None:
    """Write here and there, zeros too."""
    for _ in range(writes):
        offset = chance.randrange(len(image.data))
        length = min(chance.choice([1, 512, 70 * KIB, 200 * KIB]), len(image.data) - offset)
        image.write(offset, bytes(length) if chance.random() < 0.3 else bytes([stamp]) * length)


@pytest.fixture
def five(chain: Chain) -> Chain:
    """One full and four incrementals, the disk growing and shrinking between them."""
    chance = random.Random(5)
    chain.take(incremental=False)
    for stamp, size in enumerate([0, 300 * KIB, -500 * KIB - 100, 700 * KIB + 1], start=1):
        chain.image.resize(len(chain.image.data) + size)
        change(chain.image, chance, stamp)
        chain.take()
    return chain
