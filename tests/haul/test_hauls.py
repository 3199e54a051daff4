"""Disks into the library and back, worker to worker: the bytes are compared, the holes counted."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.harness.patterns import assert_same_file, pattern, write_pattern
from tests.haul.conftest import Disks
from tests.haul.hauls import MIB, Hauls, allocated, assert_digests, patchwork, write_sparse
from tests.tickets.vdsm import Vdsm, nbd_url

pytestmark = pytest.mark.nbd

TIB = 1 << 40
SIZE = 48 * MIB


@pytest.mark.parametrize("digests", [True, False])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_disk_of_any_layout_comes_and_goes_as_it_is(hauls: Hauls, disks: Disks, seed: int, digests: bool) -> None:
    """Neither the data's edges nor the size need any alignment; holes stay holes, and a disk's tail as it is."""
    length = 24 * MIB + 512 * seed + (seed if digests else 0)
    data, runs = patchwork(seed, length)
    file, target = disks.file(), disks.pattern(28 * MIB, 9)
    write_sparse(file, length, data, runs)
    image, received = hauls.brought(disks.serve(file, read_only=True).uri(), digests=digests)
    padded = data + bytes(-len(data) % 512)  # as qemu-nbd serves it
    assert image.read_bytes() == padded
    # Holes of less than 64 KiB may be read with their neighbours, and those at the edges of a slot.
    assert allocated(image) <= allocated(file) + length // 8
    if digests:
        assert_digests(received, padded)
    else:
        assert (received["md5"], received["hash_value"]) == (None, None)
    tail = target.read_bytes()[len(padded) :]
    assert hauls.deliver(image, disks.serve(target).uri())["state"] == "done"
    assert target.read_bytes() == padded + tail
    assert allocated(target) <= allocated(file) + length // 8 + len(tail)


def test_a_tebibyte_of_holes_takes_no_time(hauls: Hauls, disks: Disks) -> None:
    """Without digests nothing is done for zeros but asking where they are, and telling the target."""
    file, target = disks.file(), disks.file()
    islands = [0, 7 * MIB + 512, TIB // 3, TIB - MIB]
    with file.open("wb") as opened:
        opened.truncate(TIB)
        for island in islands:
            opened.seek(island)
            opened.write(pattern(1, island, MIB))
    target.touch()
    os.truncate(target, TIB)
    image, received = hauls.brought(disks.serve(file).uri(), digests=False)
    assert received["size_bytes"] == TIB
    assert hauls.deliver(image, disks.serve(target).uri())["state"] == "done"
    for found in (image, target):
        assert found.stat().st_size == TIB
        assert allocated(found) <= 16 * MIB
        with found.open("rb") as opened:
            for island in islands:
                opened.seek(island)
                assert opened.read(MIB) == pattern(1, island, MIB)


def test_a_haul_that_is_cancelled_goes_on_from_there(hauls: Hauls, disks: Disks) -> None:
    """What has come is kept if it may be; the digests are those of the whole."""
    file = disks.pattern(SIZE)
    source = disks.slow(file)
    number = hauls.begin(source.uri(), image="goes-on", resumable=True)
    hauls.wait_for(number, 8 * MIB)
    assert hauls.cancel(number)["state"] == "cancelled"
    kept = hauls.kept("goes-on")
    assert kept is not None
    assert 8 * MIB <= kept < SIZE
    number = hauls.begin(source.uri(), image="goes-on", resumable=True, offset=kept)
    assert hauls.end(number)["received"]["size_bytes"] == SIZE
    assert_digests(hauls.told(number)["received"], file.read_bytes())
    assert_same_file(hauls.directory / "goes-on", file)


def test_a_haul_that_is_cancelled_leaves_nothing(hauls: Hauls, disks: Disks) -> None:
    before = hauls.listing()
    number = hauls.begin(disks.slow(disks.pattern(SIZE)).uri(), image="goes")
    hauls.wait_for(number, 4 * MIB)
    assert hauls.cancel(number)["state"] == "cancelled"
    assert hauls.listing() == before
    assert hauls.kept("goes") is None


def test_nothing_is_written_to_a_disk_after_a_haul_was_cancelled(hauls: Hauls, disks: Disks) -> None:
    target, stored = disks.pattern(SIZE, 9), hauls.directory / "stored"
    write_pattern(stored, 1, SIZE)
    server = disks.slow(target)
    location = {"store": "file", "uri": f"file://{stored}"}
    number = hauls.begin(server.uri(), location=location, size_bytes=SIZE)
    hauls.wait_for(number, 4 * MIB)
    assert hauls.cancel(number)["state"] == "cancelled"
    left = target.read_bytes()
    assert left.endswith(pattern(9, SIZE - MIB, MIB))
    server.stop()  # whatever it had been given is written
    assert target.read_bytes() == left
    stored.unlink()


def test_what_cannot_be_is_refused_in_words(hauls: Hauls, disks: Disks) -> None:
    small, image = disks.pattern(MIB), disks.pattern(2 * MIB)
    stored = hauls.directory / "refused"
    stored.write_bytes(image.read_bytes())
    writable, sealed = disks.serve(small), disks.serve(image, read_only=True)
    told = hauls.deliver(stored, writable.uri())
    assert (told["error"], told["message"]) == (
        "DiskRefused",
        "the target has 1048576 bytes, the image has 2097152: choose a larger disk",
    )
    assert hauls.deliver(stored, sealed.uri())["message"] == "the target is read-only"
    told = hauls.deliver(stored, writable.uri(), size_bytes=MIB)
    assert told["error"] == "NotThere"
    _, told = hauls.bring(sealed.uri(), size_bytes=MIB)
    assert (told["error"], told["message"]) == ("WrongSize", "the source has 2097152 bytes, 1048576 were announced")
    _, told = hauls.bring(sealed.uri(), md5="0" * 32, digests=False)
    assert told["error"] == "WrongChecksum"
    _, told = hauls.bring(f"nbd+unix:///?socket={disks.room / 'nobody'}")
    assert told["error"] == "SourceGone"
    assert small.read_bytes() == pattern(1, 0, MIB)
    assert [name for name in hauls.listing() if name.startswith(".")] == []
    stored.unlink()


def test_the_disk_in_a_qcow2_image_is_what_is_delivered(hauls: Hauls, disks: Disks) -> None:
    raw, target = disks.pattern(8 * MIB), disks.file()
    write_pattern(target, 9, 8 * MIB)
    stored = hauls.directory / "inner"
    subprocess.run(["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", raw, stored], check=True)
    told = hauls.deliver(stored, disks.serve(target).uri(), disk_format="qcow2")
    assert told["state"] == "done", told
    assert_same_file(target, raw)
    stored.unlink()


def test_a_ticket_names_a_disk_as_far_as_it_goes(hauls: Hauls, disks: Disks, vdsm: Vdsm) -> None:
    """Its size is the image's, what it does not allow is refused, and what it moved is counted."""
    file = disks.pattern(4 * MIB)
    source = disks.serve(file)
    ticket = vdsm.install(nbd_url(source), 3 * MIB, "read")
    image, received = hauls.brought(f"ticket:{ticket}")
    assert image.read_bytes() == file.read_bytes()[: 3 * MIB]
    assert_digests(received, image.read_bytes())
    assert vdsm.look(ticket)["transferred"] == 3 * MIB
    assert hauls.deliver(image, f"ticket:{ticket}")["message"] == "the ticket does not allow writing"
    _, told = hauls.bring("ticket:nobody")
    assert told["message"] == "there is no such ticket, or no more"
    vdsm.remove(ticket)


def test_removing_its_ticket_ends_a_haul(hauls: Hauls, disks: Disks, vdsm: Vdsm) -> None:
    before = hauls.listing()
    source = disks.slow(disks.pattern(SIZE))
    ticket = vdsm.install(nbd_url(source), SIZE, "read")
    number = hauls.begin(f"ticket:{ticket}", image="ended")
    hauls.wait_for(number, 4 * MIB)
    vdsm.remove(ticket)
    told = hauls.end(number)
    assert (told["error"], told["message"]) == ("DiskRefused", "the disk's ticket was removed")
    hauls.wait_for_files(*before)


def test_both_ends_keep_their_slots_apart(hauls: Hauls, disks: Disks) -> None:
    """Two hauls of one disk at once: neither gets the other's bytes, and none is left in use."""
    one, other = disks.pattern(SIZE // 2), disks.pattern(SIZE // 2, 2)
    sources = [disks.serve(file) for file in (one, other)]
    numbers = [hauls.begin(server.uri(), image=f"twin-{turn}") for turn, server in enumerate([*sources, sources[0]])]
    assert [hauls.end(number)["state"] for number in numbers] == ["done"] * 3
    for turn, file in enumerate((one, other, one)):
        assert_same_file(hauls.directory / f"twin-{turn}", file)


@pytest.mark.parametrize("store", ["near", "far"])
def test_an_image_is_copied_between_file_stores_by_the_kernel(hauls: Hauls, store: str) -> None:
    """Also between file systems; holes stay holes, and what is no image of a store is not copied."""
    length = 24 * MIB + 77
    data, runs = patchwork(3, length)
    stored = hauls.directory / f"copied-{store}"
    write_sparse(stored, length, data, runs)
    here = {"store": "file", "uri": f"file://{stored}"}
    copy, received = hauls.brought("", copy_of=here, store=store, size_bytes=length, md5="0" * 32)
    assert copy.read_bytes() == data
    assert (received["size_bytes"], received["md5"]) == (length, "0" * 32)
    assert allocated(copy) <= allocated(stored) + MIB // 16  # of the file system's own
    _, told = hauls.bring("", copy_of=here, store=store, size_bytes=length - 1)
    assert told["error"] == "NotThere"
    _, told = hauls.bring("", copy_of={"store": "file", "uri": "file:///etc/passwd"}, store=store, size_bytes=1)
    assert told["error"] == "NotThere"
    assert [name for name in os.listdir(hauls.places[store]) if name.endswith("part")] == []
    stored.unlink()
