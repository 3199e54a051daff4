"""Bits that flip in a repository are found, and named by file and range; nobody restores them unaware."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from mover.backup.errors import Damage, DamagedError
from mover.backup.manifest import Manifest
from mover.backup.pruning import Keep, prune
from mover.backup.restoring import restore_to_file
from mover.backup.verifying import verify
from mover.client.clusters import CLUSTER_BYTES
from tests.backup.conftest import Chain


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """One bit of a file is another."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


def data_place(manifest: Manifest) -> int:
    """Where a file's data begins."""
    return manifest.file_bytes - sum(-(-length // CLUSTER_BYTES) for _, length in manifest.data) * CLUSTER_BYTES


def test_a_flipped_bit_of_data_is_named_with_its_place_in_the_file_and_on_the_disk(five: Chain, room: Path) -> None:
    """And the point cannot be restored, nor those that show the same bytes; the others can."""
    manifest = five.disk.points()[0]
    place = data_place(manifest)
    flip(five.disk.file(manifest.file), place + 7)
    [damage] = verify(five.disk)
    assert (damage.file, damage.offset, damage.length) == ("000001.qcow2", place, CLUSTER_BYTES)
    assert damage.disk_offset == manifest.data[0][0]
    with pytest.raises(DamagedError, match=rf"000001\.qcow2 bytes {place} to {place + CLUSTER_BYTES - 1}"):
        restore_to_file(five.disk, 1, room / "target.raw", "raw")
    assert not list(room.glob("*target*"))


def test_any_bit_of_any_file_is_found(five: Chain) -> None:
    """Data, metadata, padding, digests, manifests: a bit at random places of each, put back afterwards."""
    chance = random.Random(7)
    prune(five.disk, Keep(3))
    for path in sorted(five.disk.directory.glob("0*")):
        for offset in {0, path.stat().st_size - 1, *(chance.randrange(path.stat().st_size) for _ in range(12))}:
            bit = chance.randrange(8)
            flip(path, offset, bit)
            damages = verify(five.disk)
            assert damages, f"{path.name} at {offset}"
            assert any(covers(damage, path.name, offset) for damage in damages), (path.name, offset, damages)
            flip(path, offset, bit)
    assert verify(five.disk) == []


def covers(damage: Damage, name: str, offset: int) -> bool:
    return damage.file == name and (not damage.length or damage.offset <= offset < damage.offset + damage.length)


def test_a_file_that_was_cut_or_is_gone_is_named(five: Chain) -> None:
    """Each file of a point."""
    for name in ("000003.qcow2", "000004.digests"):
        path = five.disk.file(name)
        kept = path.read_bytes()
        path.write_bytes(kept[:-1])
        assert name in {damage.file for damage in verify(five.disk)}
        path.unlink()
        assert name in {damage.file for damage in verify(five.disk)}
        path.write_bytes(kept)
    assert verify(five.disk) == []


def test_one_point_is_verified_with_its_chain_only(five: Chain) -> None:
    """What is newer does not count."""
    flip(five.disk.file("000004.qcow2"), five.disk.file("000004.qcow2").stat().st_size - CLUSTER_BYTES)
    assert verify(five.disk, 3) == []
    assert verify(five.disk, 4) != []
    assert verify(five.disk, 5) != []


def test_a_damaged_point_is_not_merged(chain: Chain) -> None:
    """Pruning would remove what may still be read of it: it stops, and everything is as it was."""
    chain.take(incremental=False)
    chain.image.write(0, b"elsewhere")
    chain.take()
    manifest = chain.disk.points()[0]
    flip(chain.disk.file(manifest.file), data_place(manifest))
    before = {path.name for path in chain.disk.directory.iterdir()}
    with pytest.raises(DamagedError, match=r"000001\.qcow2"):
        prune(chain.disk, Keep(1), 0.0)
    assert {path.name for path in chain.disk.directory.iterdir()} == before


def test_an_incremental_over_a_chain_whose_digests_are_damaged_is_refused(five: Chain) -> None:
    """Its blkhash would be of something that never was on the disk."""
    flip(five.disk.file("000002.digests"), 0)
    with pytest.raises(DamagedError, match=r"000002\.digests: its digests are not those of the manifest"):
        five.take()
    assert five.points() == [1, 2, 3, 4, 5]
