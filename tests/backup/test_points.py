"""Points in time, taken of an image in memory: what they hold, and what their files are."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mover.backup.digests import DIGEST_BYTES
from mover.backup.errors import ChangesUnknown, NoSuchPoint
from mover.backup.manifest import Blkhash, Manifest, decode
from mover.backup.pruning import Keep, prune
from mover.backup.repository import Repository
from mover.backup.restoring import restore_to_file
from mover.backup.taking import Wish, back_up
from mover.backup.verifying import verify
from mover.client import Extent
from mover.client.clusters import CLUSTER_BYTES
from tests.backup.conftest import Chain, change
from tests.harness.fixtures import memory_room
from tests.harness.memory_image import MemoryImage

KIB = 1024


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 32), granularity=st.sampled_from([512, 4096, 65536, 1 << 20]))
def test_every_point_restores_whatever_changed_between_them(seed: int, granularity: int) -> None:
    """Writes, zeros, growth, shrinking, bitmaps of any granularity, pruning in between: no byte is another one."""
    chance = random.Random(seed)
    with memory_room() as room:
        image = MemoryImage(chance.randrange(1, 2000 * KIB), granularity)
        chain = Chain(Repository(room / "repo").make_disk("vm/vda"), image)
        for stamp in range(1, 7):
            if chance.random() < 0.4:
                image.resize(chance.randrange(1, 2000 * KIB))
            change(image, chance, stamp)
            chain.take(incremental=bool(chain.held) and chance.random() < 0.8)
            if chance.random() < 0.3:
                prune(chain.disk, Keep(chance.randint(1, 3)), 0.0)
        chain.assert_restores(room)
        assert verify(chain.disk) == []


def test_what_is_dirty_and_reads_as_zeros_masks_what_the_chain_has_there(chain: Chain, room: Path) -> None:
    """Zeros are stored as zeros where a backup before them has data: otherwise old bytes would come back."""
    chain.take(incremental=False)
    chain.image.write(128 * KIB, bytes(256 * KIB))
    chain.take()
    [_, manifest] = chain.disk.points()
    assert manifest.zero == [(128 * KIB, 256 * KIB)]
    assert manifest.data == []
    chain.assert_restores(room)


def test_an_incremental_holds_only_what_has_changed(chain: Chain) -> None:
    """Nothing is read or stored beside the clusters that are dirty."""
    chain.take(incremental=False)
    chain.image.write(3 * CLUSTER_BYTES + 5, b"x" * 10)
    chain.take()
    [_, manifest] = chain.disk.points()
    assert (manifest.kind, manifest.parent) == ("incremental", 1)
    assert manifest.data == [(3 * CLUSTER_BYTES, CLUSTER_BYTES)]
    assert chain.disk.file(manifest.digests).stat().st_size == DIGEST_BYTES


def test_an_incremental_without_any_change_is_a_point_too(chain: Chain, room: Path) -> None:
    """Somebody wants to know what was on the disk at that time, and it was the same."""
    chain.take(incremental=False)
    chain.take()
    assert [each.data_bytes for each in chain.disk.points()][1] == 0
    chain.assert_restores(room)


def test_zeros_that_a_server_calls_data_take_no_space(room: Path) -> None:
    """A file of zeros is a hole in the repository."""
    image = MemoryImage(8 << 20)
    image.extents = lambda context="zero": iter([Extent(0, len(image.data), zero=False)])  # type: ignore[method-assign]
    chain = Chain(Repository(room / "repo").make_disk("vm/vda"), image)
    chain.take(incremental=False)
    [manifest] = chain.disk.points()
    assert chain.disk.file(manifest.file).stat().st_blocks * 512 < 1 << 20
    chain.assert_restores(room)


def test_an_image_of_no_bytes_is_backed_up(room: Path) -> None:
    """As small as can be."""
    chain = Chain(Repository(room / "repo").make_disk("vm/vda"), MemoryImage(0))
    chain.take(incremental=False)
    chain.take()
    chain.assert_restores(room)
    assert verify(chain.disk) == []


def test_the_blkhash_of_a_point_is_that_of_its_bytes(five: Chain) -> None:
    """Made of the chain's digests, it is what hashing the whole disk makes; the manifest says how."""
    for manifest in five.disk.points():
        assert manifest.blkhash.checksum == _blkhash(five.held[manifest.point])
        assert (manifest.blkhash.algorithm, manifest.blkhash.block_bytes) == ("blake2b", 65536)


def _blkhash(data: bytes) -> str:
    blocks = [data[at : at + 65536] for at in range(0, len(data), 65536)]
    digests = [hashlib.blake2b(block, digest_size=32).digest() for block in blocks]
    return hashlib.blake2b(b"".join(digests), digest_size=32).hexdigest()


def test_a_manifest_says_what_a_point_is(chain: Chain) -> None:
    """Size, extents, bitmap and checkpoint, blkhash, tool, time and parent stand in a JSON file."""
    back_up(chain.disk, chain.image.as_client(), Wish(incremental=False, checkpoint="cp1"))
    wish = Wish(incremental=True, bitmap="cp1", checkpoint="cp2")
    made = back_up(chain.disk, chain.image.as_client(), wish).manifest
    read = decode(chain.disk.file("000002.json").read_bytes())
    assert read == made
    assert (read.parent, read.bitmap, read.checkpoint) == (1, "cp1", "cp2")
    assert read.tool.startswith("mover")
    assert read.time.endswith("Z")
    assert read.image == "http://127.0.0.1:1/images/memory"


@pytest.mark.parametrize(
    ("checkpoint", "bitmap", "next_bitmap"), [("cp1", None, "cp2"), (None, "b0", "b1"), ("cp1", "b0", "b0")]
)
def test_a_bitmap_that_does_not_begin_at_the_newest_point_is_refused(
    chain: Chain, checkpoint: str | None, bitmap: str | None, next_bitmap: str
) -> None:
    """Changes between the point and the bitmap's begin would be missing in all points to come."""
    image = chain.image.as_client()
    back_up(chain.disk, image, Wish(incremental=False, bitmap=bitmap, checkpoint=checkpoint))
    with pytest.raises(ChangesUnknown, match="does not begin at point 1"):
        back_up(chain.disk, image, Wish(incremental=True, bitmap=next_bitmap))
    assert chain.points() == [1]


def test_one_bitmap_that_goes_on_and_on_needs_one_name(chain: Chain) -> None:
    """A bitmap that is cleared after each backup begins at each of them."""
    image = chain.image.as_client()
    back_up(chain.disk, image, Wish(incremental=False, bitmap="b0"))
    back_up(chain.disk, image, Wish(incremental=True, bitmap="b0"))
    back_up(chain.disk, image, Wish(incremental=True, bitmap="b0"))
    assert chain.points() == [1, 2, 3]


def test_there_is_no_incremental_without_a_full_one_unless_that_is_allowed(chain: Chain) -> None:
    """What has changed since nothing is unknown."""
    with pytest.raises(ChangesUnknown, match="no backup yet"):
        back_up(chain.disk, chain.image.as_client(), Wish(incremental=True))
    taken = back_up(chain.disk, chain.image.as_client(), Wish(incremental=True, allow_full=True))
    assert taken.manifest.kind == "full"
    assert taken.why_full is not None


def test_a_full_one_begins_a_chain_of_its_own(five: Chain, room: Path) -> None:
    """And what was there before stays."""
    five.take(incremental=False)
    five.take()
    assert [each.parent for each in five.disk.points()] == [None, 1, 2, 3, 4, None, 6]
    five.assert_restores(room)


def test_a_point_that_is_not_there_is_named_with_those_that_are(five: Chain, room: Path) -> None:
    """The message helps on."""
    with pytest.raises(NoSuchPoint, match=r"point 9 of vm/vda.*1, 2, 3, 4, 5"):
        restore_to_file(five.disk, 9, room / "x.raw", "raw")
    assert not (room / "x.raw").exists()


@pytest.mark.parametrize("keep", [1, 2, 3, 4, 5])
def test_pruning_keeps_the_newest_and_merges_what_they_need(five: Chain, room: Path, keep: int) -> None:
    """The oldest that stays becomes a full one; all that stay are what they were."""
    done = prune(five.disk, Keep(keep))
    assert done.gone == [1, 2, 3, 4, 5][: 5 - keep]
    points = five.disk.points()
    assert [each.point for each in points] == [1, 2, 3, 4, 5][5 - keep :]
    assert points[0].parent is None
    five.assert_restores(room)
    assert verify(five.disk) == []
    assert _ours(points) == {path.name for path in five.disk.directory.iterdir()}


def _ours(points: list[Manifest]) -> set[str]:
    files = {name for each in points for name in (each.file, each.digests, f"{each.point:06}.json")}
    return files | {"writing.lock", "reading.lock"}


def test_incrementals_go_on_after_pruning(five: Chain, room: Path) -> None:
    """A chain whose begin was merged grows like any other, and is pruned again."""
    prune(five.disk, Keep(2))
    five.image.write(0, b"after pruning")
    five.take()
    prune(five.disk, Keep(2))
    assert five.points() == [5, 6]
    five.assert_restores(room)
    prune(five.disk, Keep(1))
    assert five.points() == [6]
    five.assert_restores(room)


def test_a_full_one_that_stays_is_not_merged(five: Chain) -> None:
    """There is nothing to merge: the chain before it goes as it is."""
    five.take(incremental=False)
    done = prune(five.disk, Keep(1))
    assert done.merged is None
    assert [each.kind for each in five.disk.points()] == ["full"]


def test_age_prunes_what_is_older_but_never_the_newest() -> None:
    """A disk that nobody has backed up for a year still has its last point."""
    times = ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"]
    points = [_at(number, time) for number, time in enumerate(times, start=1)]
    third = 1_767_398_400.0
    assert [each.point for each in Keep(age_s=86400.0).kept(points, third)] == [2, 3]
    assert [each.point for each in Keep(age_s=86400.0).kept(points, third + 0.5)] == [3]
    assert [each.point for each in Keep(age_s=1.0).kept(points, third + 1e9)] == [3]
    assert [each.point for each in Keep(points=7).kept(points, third)] == [1, 2, 3]


def _at(number: int, time: str) -> Manifest:
    return Manifest(
        point=number, kind="full", time=time, tool="", image="", size_bytes=0, parent=None, bitmap=None,
        checkpoint=None, file="", file_bytes=0, digests="", data=[], zero=[], blkhash=Blkhash(""),
        data_blkhash=Blkhash(""),
    )  # fmt: skip
