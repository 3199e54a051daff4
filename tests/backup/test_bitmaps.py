"""Backups with qemu's own dirty bitmaps, through qemu-nbd, `mover serve` and the command line."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.backup.served import Served, backup, said
from tests.harness.changing import CLUSTER_BYTES, KIB, MIB, ChangingDisk, assert_same_disk, assert_sound, run
from tests.harness.fixtures import memory_room
from tests.harness.servers import qemu_nbd

pytestmark = [pytest.mark.nbd, pytest.mark.slow]

INCREMENTALS = 10
NAME = "vm1/vda"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """The service, once for all of these tests, and the place of its disk."""
    with memory_room() as room, closing(Served(room, [None, *(f"b{n}" for n in range(INCREMENTALS + 1))])) as served:
        served.mover.start()
        yield served


@pytest.fixture
def disk(served: Served) -> ChangingDisk:
    """A new disk of 24 MiB in that place."""
    return ChangingDisk(served.disk, 24 * MIB)


def test_a_full_one_and_ten_incrementals_restore_byte_for_byte(
    room: Path, disk: ChangingDisk, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """Writes, zeros, trims and growth between them, partly beyond old data: each point is what the guest had then."""
    repo = room / "repo"
    chance = random.Random(11)
    models = []
    for number in range(INCREMENTALS + 1):
        if number == 4:
            disk.grow(32 * MIB + 3 * 512)
        if number == 8:
            disk.grow(33 * MIB)
        disk.change_at_random(chance, number + 1)
        disk.begin_bitmap(f"b{number}")
        models.append(bytes(disk.model))
        bitmap = f"b{number - 1}" if number else None
        kind = ["incremental", "--bitmap", bitmap] if bitmap else ["full"]
        with served.serving(bitmap) as url:
            done = backup(*kind, url, "--repo", repo, "--name", NAME, "--checkpoint", f"b{number}", "--json")
        assert done == 0
    made = [each for each in said(capsys) if each.get("kind")]
    assert [each["kind"] for each in made] == ["full"] + ["incremental"] * INCREMENTALS
    assert all(each["zero_bytes"] for each in made[1:]), "every incremental should have had zeros to keep"
    for number, model in enumerate(models):
        assert_restores(room, repo, number + 1, model)
    assert backup("verify", "--repo", repo) == 0
    assert backup("prune", "--repo", repo, "--keep", 4) == 0
    for number in range(INCREMENTALS - 3, INCREMENTALS + 1):
        assert_restores(room, repo, number + 1, models[number])


def assert_restores(room: Path, repo: Path, point: int, model: bytes) -> None:
    """The point restores to raw and to qcow2, and its own file reads the same by qemu."""
    raw, qcow2 = room / "restored.raw", room / "restored.qcow2"
    for target in (raw, qcow2):
        assert backup("restore", "--repo", repo, "--name", NAME, "--point", point, target) == 0
    assert raw.read_bytes() == model
    assert_sound(qcow2, [qcow2.name])
    assert_same_disk(raw, "raw", qcow2, "qcow2")
    [file] = (repo / NAME).glob(f"{point:06}*.qcow2")
    assert_same_disk(raw, "raw", file, "qcow2")
    run("qemu-img", "check", "-q", "-f", "qcow2", file)
    raw.unlink()
    qcow2.unlink()


@pytest.mark.parametrize("how", ["zero", "unmap", "trim"])
def test_zeros_over_old_data_do_not_bring_the_old_bytes_back(
    room: Path, disk: ChangingDisk, served: Served, how: str
) -> None:
    """What became zeros since the full backup reads as zeros in the incremental, however it became so."""
    repo = room / "repo"
    disk.write(0, 8 * MIB, 0xAA)
    disk.begin_bitmap("b0")
    with served.serving() as url:
        assert backup("full", url, "--repo", repo, "--name", NAME, "--bitmap", "b0") == 0
    at, length = 2 * MIB, 3 * MIB
    if how == "trim":
        disk.trim(at, length)
    else:
        disk.zero(at, length, unmap=how == "unmap")
    disk.apply()
    with served.serving("b0") as url:
        assert backup("incremental", url, "--repo", repo, "--name", NAME, "--bitmap", "b0") == 0
    file = repo / NAME / "000002.qcow2"
    assert file.stat().st_blocks * 512 < MIB, "zeros are stored as such, not as bytes"
    target = room / "restored.raw"
    assert backup("restore", "--repo", repo, "--name", NAME, target) == 0
    assert target.read_bytes() == bytes(disk.model)
    assert_same_disk(target, "raw", file, "qcow2")


@pytest.mark.parametrize("granularity", [4 * KIB, 512 * KIB])
def test_bitmaps_of_other_granularities_lose_nothing(room: Path, served: Served, granularity: int) -> None:
    """Smaller than a cluster or larger, what is dirty in part of a cluster makes all of it come along."""
    repo = room / "repo"
    disk = ChangingDisk(served.disk, 8 * MIB, granularity)
    disk.write(0, 4 * MIB, 1)
    disk.begin_bitmap("b0")
    with served.serving() as url:
        assert backup("full", url, "--repo", repo, "--name", NAME) == 0
    disk.write(CLUSTER_BYTES + 512, 512, 2)
    disk.zero(MIB - 512, 2 * 512)
    disk.write(5 * MIB + 3 * 512, 512, 3)
    disk.apply()
    with served.serving("b0") as url:
        assert backup("incremental", url, "--repo", repo, "--name", NAME) == 0
    target = room / "restored.raw"
    assert backup("restore", "--repo", repo, "--name", NAME, target) == 0
    assert target.read_bytes() == bytes(disk.model)


def test_without_a_bitmap_there_is_no_incremental_unless_a_full_one_is_allowed(
    room: Path, disk: ChangingDisk, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 1 and the reason; nothing is guessed, and nothing is stored."""
    repo = room / "repo"
    disk.write(0, MIB, 1)
    disk.apply()
    with served.serving() as url:
        assert backup("full", url, "--repo", repo, "--name", NAME) == 0
        assert backup("incremental", url, "--repo", repo, "--name", NAME) == 1
        assert "the server lists no changes" in capsys.readouterr().err
        assert len(list((repo / NAME).glob("*.json"))) == 1
        assert backup("incremental", url, "--repo", repo, "--name", NAME, "--allow-full") == 0
    assert "a full backup was made: the server lists no changes" in capsys.readouterr().err
    assert backup("list", "--repo", repo, "--json") == 0
    assert [each["kind"] for each in said(capsys)] == ["full", "full"]


def test_an_inconsistent_bitmap_is_no_bitmap(
    room: Path, disk: ChangingDisk, served: Served, endings: ExitStack, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a crash of whoever had the disk open, its bitmap does not know what changed: qemu gives it to nobody."""
    repo = room / "repo"
    disk.write(0, MIB, 1)
    disk.begin_bitmap("b0")
    with served.serving() as url:
        assert backup("full", url, "--repo", repo, "--name", NAME, "--bitmap", "b0") == 0
    writer = qemu_nbd(served.room, "writer", disk.path, image_format="qcow2")
    endings.callback(writer.close)
    writer.start()
    writer.kill()
    assert "in-use" in run("qemu-img", "info", disk.path)
    # The export that its owner would make now: without the bitmap, which qemu-nbd refuses to serve.
    without = qemu_nbd(served.room, "b0", disk.path, image_format="qcow2", read_only=True)
    endings.callback(without.close)
    without.start()
    capsys.readouterr()
    assert backup("incremental", served.url("b0"), "--repo", repo, "--name", NAME, "--bitmap", "b0") == 1
    assert "the server lists no changes" in capsys.readouterr().err
    assert backup("incremental", served.url("b0"), "--repo", repo, "--name", NAME, "--allow-full") == 0
