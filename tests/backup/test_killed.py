"""Killed with SIGKILL before each of its changes to the file system, a run leaves only points that restore."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mover.backup.pruning import Keep, prune
from mover.backup.repository import Repository
from mover.backup.restoring import restore_to_file
from mover.backup.taking import Wish, back_up
from mover.backup.verifying import verify
from tests.backup.conftest import Chain
from tests.harness.changing import run
from tests.harness.dying import kill_at_every_step

pytestmark = [pytest.mark.slow, pytest.mark.nbd]

FINAL = re.compile(r"(writing|reading)\.lock|\d{6}\.json|\d{6}(\.merged)?\.(qcow2|digests)")


def scenes(chain: Chain, room: Path, work: Callable[[], object]) -> Iterator[int]:
    """For each step that `work` can be killed at: the repository as it was, after that has happened to it."""
    repository = chain.disk.directory.parents[1]
    before = room / "before"
    shutil.copytree(repository, before)
    for number in kill_at_every_step(work):
        yield number
        shutil.rmtree(repository)
        shutil.copytree(before, repository)


def assert_tidy(chain: Chain) -> None:
    """Nothing is left but what the manifests name."""
    names = {path.name for path in chain.disk.directory.iterdir()}
    assert all(FINAL.fullmatch(name) for name in names), names
    points = chain.disk.points()
    assert {name for name in names if name.endswith(".qcow2")} == {each.file for each in points}
    assert {name for name in names if name.endswith(".digests")} == {each.digests for each in points}


def assert_qemu_reads(chain: Chain, point: int, room: Path) -> None:
    """qemu-img, which knows nothing of manifests, reads the same bytes from the file and those below it."""
    [manifest] = [each for each in chain.disk.points() if each.point == point]
    out = room / "by-qemu.raw"
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", chain.disk.file(manifest.file), out)
    assert out.read_bytes()[: manifest.size_bytes] == chain.held[point]
    out.unlink()


def test_a_killed_backup_leaves_the_points_before_it_or_one_more(five: Chain, room: Path) -> None:
    """Never half a point; the next run takes away what is left, and makes a point."""
    five.image.write(200 * 1024, b"six" * 50_000)
    five.held |= dict.fromkeys([6, 7], bytes(five.image.data))
    killed = 0

    def work() -> None:
        back_up(five.disk, five.image.as_client(), Wish(incremental=True))

    for number in scenes(five, room, work):
        killed = number
        points = five.points()
        assert points in ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6])
        five.assert_point_restores(points[-1], room)
        assert verify(five.disk) == []
        work()
        five.assert_restores(room)
        assert_tidy(five)
    assert killed > 15


def test_a_killed_first_backup_leaves_nothing_listed_or_a_whole_point(chain: Chain, room: Path) -> None:
    """From making the repository's directory on."""
    repository = room / "new"
    killed = 0

    def work() -> None:
        disk = Repository(repository).make_disk("vm/vda")
        back_up(disk, chain.image.as_client(), Wish(incremental=False))

    for number in kill_at_every_step(work):
        killed = number
        disk = Repository(repository).make_disk("vm/vda")
        found = Chain(disk, chain.image, {1: bytes(chain.image.data)})
        found.assert_restores(room)
        back_up(disk, chain.image.as_client(), Wish(incremental=False))
        found.held[max(found.points())] = found.held[1]
        found.assert_restores(room)
        assert_tidy(found)
        shutil.rmtree(repository)
    assert killed > 15


@pytest.mark.parametrize("keep", [1, 3])
def test_a_killed_prune_leaves_every_point_that_is_listed_restorable(five: Chain, room: Path, keep: int) -> None:
    """By Mover and by qemu-img, at once and after the next run, which does the rest."""
    kept = [1, 2, 3, 4, 5][-keep:]
    killed = 0
    for number in scenes(five, room, lambda: prune(five.disk, Keep(keep))):
        killed = number
        points = five.points()
        assert points[-keep:] == kept
        five.assert_restores(room)
        assert verify(five.disk) == []
        assert_qemu_reads(five, kept[0], room)
        assert_qemu_reads(five, kept[-1], room)
        prune(five.disk, Keep(keep))
        assert five.points() == kept
        five.assert_restores(room)
        assert_qemu_reads(five, kept[-1], room)
        assert_tidy(five)
    assert killed > 30


def test_a_backup_after_a_killed_prune_goes_on(five: Chain, room: Path) -> None:
    """The run that comes next need not be another prune."""
    for _ in scenes(five, room, lambda: prune(five.disk, Keep(2))):
        five.take()
        five.assert_restores(room)
        assert_qemu_reads(five, 6, room)
        assert_tidy(five)


@pytest.mark.parametrize("file_format", ["raw", "qcow2"])
def test_a_killed_restore_leaves_no_file_or_a_whole_one(five: Chain, room: Path, file_format: str) -> None:
    """And the next run uses what was left beside it."""
    target = room / "target"
    killed = 0
    for number in kill_at_every_step(lambda: restore_to_file(five.disk, 4, target, file_format)):  # type: ignore[arg-type]
        killed = number
        if target.exists():
            assert_holds(target, file_format, five.held[4], room)
            target.unlink()
        restore_to_file(five.disk, 4, target, file_format)  # type: ignore[arg-type]
        assert_holds(target, file_format, five.held[4], room)
        assert [path.name for path in room.iterdir() if "restoring" in path.name] == []
        target.unlink()
    assert killed > 5


def assert_holds(target: Path, file_format: str, expected: bytes, room: Path) -> None:
    raw = target
    if file_format == "qcow2":
        raw = room / "converted"
        run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", target, raw)
    assert raw.read_bytes()[: len(expected)] == expected
