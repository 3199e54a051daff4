"""The qcow2 files of downloads: qemu finds no fault in them, whatever the disk is, and reads the image's bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mover.client import download
from mover.client.clusters import CLUSTER_BYTES, Content, Positions, Run
from mover.client.qcow2 import BLOCK_REFCOUNTS, L2_ENTRIES, Layout
from tests.client.conftest import client, qemu_img
from tests.harness.fixtures import Images, memory_room
from tests.harness.mover import Mover
from tests.harness.patterns import MIB, pattern

pytestmark = pytest.mark.nbd

KIB = 1024
TABLE = L2_ENTRIES
TABLE_BYTES = TABLE * CLUSTER_BYTES

# (data, holes): clusters of the disk, and those of them, by their positions, that turn out to be zeros.
HOLES = [
    ([Run(0, 1)], [Run(0, 1)]),
    ([Run(0, 10)], [Run(0, 1), Run(3, 2), Run(9, 1)]),
    ([Run(0, 2), Run(5, 2), Run(9, 2)], [Run(1, 4)]),
    ([Run(TABLE - 2, 4), Run(3 * TABLE, 1)], [Run(1, 2)]),
    ([Run(TABLE - 2, 4), Run(3 * TABLE, 1)], [Run(0, 2), Run(4, 1)]),
    ([Run(TABLE, TABLE), Run(5 * TABLE, 5)], [Run(0, TABLE + 1)]),
    ([Run(1, 2 * BLOCK_REFCOUNTS)], [Run(BLOCK_REFCOUNTS - 100, 90), Run(BLOCK_REFCOUNTS, BLOCK_REFCOUNTS)]),
    ([Run(1, 2 * BLOCK_REFCOUNTS)], [Run(7, 2 * BLOCK_REFCOUNTS - 8)]),
]


@pytest.mark.parametrize(("data", "holes"), HOLES, ids=lambda value: "-".join(f"{one[0]}+{one[1]}" for one in value))
def test_clusters_that_were_planned_and_not_needed_are_free(room: Path, data: list[Run], holes: list[Run]) -> None:
    """No leak and no error, also over the edges of tables and of refcounts; all others are where they belong."""
    layout = Layout.plan(9 * TABLE_BYTES, Content(data, []), None)
    path = room / "layout.qcow2"
    with path.open("wb") as file:
        for piece in layout.metadata(holes):
            file.write(piece)
        assert file.tell() == layout.data_at * CLUSTER_BYTES
        file.truncate(layout.file_bytes)
    qemu_img("check", "-q", "-f", "qcow2", path)
    mapped = json.loads(qemu_img("map", "--output=json", "-f", "qcow2", path))
    found = [
        (at, run["offset"] + at * CLUSTER_BYTES - run["start"])
        for run in mapped if run["present"]
        for at in range(run["start"] // CLUSTER_BYTES, (run["start"] + run["length"]) // CLUSTER_BYTES)
    ]  # fmt: skip
    free = {position for hole in holes for position in range(hole.first, hole.end)}
    positions = Positions(data)
    wanted = [(cluster, positions.of(cluster)) for run in data for cluster in range(run.first, run.end)]
    assert found == [(cluster, layout.place(position)) for cluster, position in wanted if position not in free]


# Of what is larger, not all is moved and compared.
SMALL_BYTES = 8 * MIB
# {name: (bytes of the disk, its runs of data)}; of a server that lists extents, and of one for which all is data.
DISKS: dict[str, tuple[int, list[tuple[int, int]]]] = {
    "nothing": (0, []),
    "a byte": (1, [(0, 1)]),
    "no whole sector": (12345, [(0, 12345)]),
    "only zeros": (3 * MIB, []),
    "shreds": (8 * MIB, [(at, 4 * KIB) for at in range(0, 8 * MIB, 20 * KIB)]),
    "the end of a cluster and the begin of another": (MIB, [(60 * KIB, 4 * KIB), (64 * KIB, 4 * KIB)]),
    "odd places": (5 * MIB + 17, [(4096, 300 * KIB), (2 * MIB - 4096, 8192), (5 * MIB, 17)]),
    "edges of tables": (
        3 * TABLE_BYTES, [(TABLE_BYTES - 128 * KIB, 256 * KIB), (2 * TABLE_BYTES, 4 * KIB), (3 * TABLE_BYTES - 1, 1)],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def disks() -> Iterator[tuple[Mover, Path]]:
    """Mover before all of DISKS, each by its name and as `NAME, thick`; and where the files are."""
    with memory_room() as room, ExitStack() as stack:
        images = Images(room, stack)
        servers = {}
        for number, (name, (size, runs)) in enumerate(DISKS.items()):
            path = room / name
            with path.open("wb") as file:
                for offset, length in runs:
                    os.pwrite(file.fileno(), pattern(1, offset, length), offset)
                file.truncate(size)
            servers[name] = images.nbdkit(f"n{number}", "file", str(path))
            if size <= SMALL_BYTES:
                servers[f"{name}, thick"] = images.nbdkit(f"t{number}", "file", str(path), filters=["noextents"])
        mover = Mover(room, {name.replace(" ", "-"): server for name, server in servers.items()})
        stack.callback(mover.close)
        yield mover.start(), room


CASES = [(name, False) for name in DISKS] + [(name, True) for name, (size, _) in DISKS.items() if size <= SMALL_BYTES]


@pytest.mark.parametrize(("name", "thick"), CASES)
def test_any_disk_is_read_as_it_is(name: str, thick: bool, disks: tuple[Mover, Path], room: Path) -> None:
    """By one worker and by four, in small buffers and large ones: the same sound file, with no more than the data."""
    mover, sources = disks
    size, runs = DISKS[name]
    image = (f"{name}, thick" if thick else name).replace(" ", "-")
    made = []
    for workers, buffer_bytes in ((1, 4 * MIB), (4, 100_000)):
        target = room / f"copy-{workers}.qcow2"
        with client(mover, image.replace(",", "%2C")) as disk:
            download(disk, target, image_format="qcow2", max_workers=workers, buffer_bytes=buffer_bytes, verify=True)
        qemu_img("check", "-q", "-f", "qcow2", target)
        qemu_img("compare", "-f", "qcow2", "-F", "raw", target, sources / name)
        data = {offset // CLUSTER_BYTES + n for offset, length in runs for n in range(-(-length // CLUSTER_BYTES) + 1)}
        assert target.stat().st_blocks * 512 <= (len(data) + 16) * CLUSTER_BYTES
        made.append(target.read_bytes() if size <= SMALL_BYTES else b"")
    assert made[0] == made[1]
