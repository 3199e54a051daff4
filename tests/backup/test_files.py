"""The qcow2 files themselves: qemu finds no fault in them, and reads what Mover reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from mover.backup.manifest import Manifest
from mover.backup.point_writer import Qcow2Writer
from mover.backup.pruning import Keep, prune
from mover.client.clusters import CLUSTER_BYTES, Content, Run
from mover.client.qcow2 import BLOCK_REFCOUNTS, L2_ENTRIES, Layout, TooLargeError
from tests.backup.conftest import Chain
from tests.harness.changing import assert_sound, run

pytestmark = pytest.mark.nbd

TABLE = L2_ENTRIES


def files_below(points: list[Manifest], manifest: Manifest) -> list[str]:
    """The names of a point's chain, its own first."""
    by_number = {each.point: each for each in points}
    found = [manifest.file]
    while manifest.parent is not None:
        manifest = by_number[manifest.parent]
        found.append(manifest.file)
    return found


@pytest.mark.parametrize("keep", [5, 3, 1])
def test_qemu_reads_every_point_as_it_was(five: Chain, room: Path, keep: int) -> None:
    """Check, info and convert agree with each file, through growth and shrinking, before and after pruning."""
    prune(five.disk, Keep(keep))
    points = five.disk.points()
    for manifest in points:
        assert_sound(five.disk.file(manifest.file), files_below(points, manifest))
        out = room / "out.raw"
        run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", five.disk.file(manifest.file), out)
        assert out.read_bytes()[: manifest.size_bytes] == five.held[manifest.point]
        assert not any(out.read_bytes()[manifest.size_bytes :])


def test_a_repository_can_be_moved(five: Chain, room: Path) -> None:
    """Files name each other without a directory."""
    moved = room / "elsewhere"
    five.disk.directory.rename(moved)
    assert_sound(moved / "000005.qcow2", [f"00000{point}.qcow2" for point in (5, 4, 3, 2, 1)])


@pytest.mark.parametrize(
    "content",
    [
        Content([], []),
        Content([Run(0, 1)], []),
        Content([Run(TABLE - 1, 2)], [Run(TABLE + 1, 3 * TABLE)]),
        Content([Run(0, 1), Run(5 * TABLE, 1)], [Run(7 * TABLE + 1, 1)]),
        Content([Run(1, BLOCK_REFCOUNTS)], []),
        Content([Run(1, 2 * BLOCK_REFCOUNTS - 20 - number) for number in (0,)], []),
    ],
)
def test_qemu_finds_no_fault_in_a_file_of_any_layout(room: Path, content: Content) -> None:
    """Also where data, zeros and refcounts go over the edges of tables."""
    layout = Layout.plan(9 * TABLE * CLUSTER_BYTES + 512, content, None)
    path = room / "layout.qcow2"
    with path.open("wb") as file:
        Qcow2Writer(file.fileno(), layout)
    assert sum(len(piece) for piece in layout.metadata()) == layout.data_at * CLUSTER_BYTES
    assert_sound(path, [path.name])


def test_refcounts_count_themselves_at_every_edge() -> None:
    """There are as many blocks of refcounts as the file has clusters for, wherever the last one begins to be needed."""
    for data in range(BLOCK_REFCOUNTS - 12, BLOCK_REFCOUNTS + 3):
        layout = Layout.plan(8 * TABLE * CLUSTER_BYTES, Content([Run(0, data)], []), None)
        clusters = layout.file_bytes // CLUSTER_BYTES
        assert (layout.block_clusters - 1) * BLOCK_REFCOUNTS < clusters <= layout.block_clusters * BLOCK_REFCOUNTS


def test_a_disk_that_qcow2_cannot_hold_is_refused() -> None:
    """More than 32 MiB of L1 table, which qemu would not open."""
    Layout.plan(1 << 51, Content([], []), None)
    with pytest.raises(TooLargeError, match="more than qcow2 can hold"):
        Layout.plan((1 << 51) + 1, Content([], []), None)
