"""Downloads: every byte, holes where the image has zeros, and nothing under the name before all is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mover.client import Client, ClientError, LocalError, Progress, VerificationError, download, part, upload
from tests.client.conftest import (
    DISK_BYTES,
    ODD_SIZES,
    TIB,
    Served,
    assert_nothing_beside,
    assert_same_disk,
    client,
    make_disk,
    qemu_img,
    url,
)
from tests.client.proxy import Proxy
from tests.harness.fixtures import Images, StartMover
from tests.harness.patterns import MIB, pattern

pytestmark = pytest.mark.nbd


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_the_file_is_the_image(image_format: str, verify: bool, served: Served, room: Path) -> None:
    """Byte for byte, as sparse as the image, sound, and alone."""
    target = room / f"copy.{image_format}"
    seen: list[Progress] = []
    with client(served.mover) as disk:
        report = download(disk, target, image_format=image_format, verify=verify, progress=seen.append)
        assert (report.checksum == disk.checksum()) == verify
    assert_same_disk(target, served.source, image_format)
    assert_nothing_beside(target)
    # A cluster of qcow2 has 64 KiB, where the source has runs of 4.
    rounding = {"raw": 0, "qcow2": 4 * MIB}[image_format]
    assert target.stat().st_blocks * 512 <= report.data + rounding
    assert (report.size, report.flushed, seen[-1].phase) == (DISK_BYTES, True, "done")
    assert seen[-1].done == seen[-1].data == report.data
    assert [one.done for one in seen] == sorted(one.done for one in seen)


@pytest.mark.parametrize(("workers", "buffer_bytes"), [(1, 65536), (3, 4 * MIB), (16, 300_000)])
def test_workers_and_buffers_of_any_number(workers: int, buffer_bytes: int, served: Served, room: Path) -> None:
    """They change nothing in what arrives."""
    with client(served.mover) as disk:
        download(disk, room / "copy", max_workers=workers, buffer_bytes=buffer_bytes, verify=True)
    assert_same_disk(room / "copy", served.source)


@pytest.mark.parametrize("size", ODD_SIZES)
def test_images_of_odd_sizes(size: int, served: Served, room: Path) -> None:
    """To the last byte; also where the server lists no extents."""
    for name in (f"odd-{size}", f"odd-{size}-thick"):
        with client(served.mover, name) as disk:
            download(disk, room / "copy", verify=True)
        assert (room / "copy").read_bytes() == pattern(1, 0, size)


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_a_large_empty_image_costs_nothing(image_format: str, served: Served, room: Path) -> None:
    """No byte of 1 TiB of zeros is moved, or takes space."""
    target = room / f"copy.{image_format}"
    with client(served.mover, "empty") as disk:
        report = download(disk, target, image_format=image_format)
    assert (report.size, report.data) == (TIB, 0)
    assert f'"virtual-size": {TIB}' in qemu_img("info", "--output=json", "-f", image_format, target)
    assert target.stat().st_blocks * 512 < 64 * MIB


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_zeros_that_are_data_become_holes(image_format: str, served: Served, room: Path) -> None:
    """A server that calls everything data makes no thick files."""
    with client(served.mover, "thick") as disk:
        report = download(disk, room / "copy", image_format=image_format)
    assert report.data == DISK_BYTES
    assert_same_disk(room / "copy", served.source, image_format)
    # Of qcow2, only whole buffers are left out.
    assert (room / "copy").stat().st_blocks * 512 < DISK_BYTES * 3 // 4


def test_the_old_file_stays_until_the_new_one_is_complete(images: Images, start_mover: StartMover, room: Path) -> None:
    """What fails changes nothing under the name, and says so; what succeeds replaces it."""
    source = make_disk(room / "source")
    server = images.qemu_nbd(source, read_only=True)
    mover = start_mover({"disk": server}, {"worker": {"reconnect_s": 0.1, "connect_s": 0.2}})
    target = room / "copy"
    target.write_bytes(b"old")
    halfway: list[int] = []

    def kill_halfway(now: Progress) -> None:
        if now.done > now.data // 4 and not halfway:
            halfway.append(now.done)
            server.kill()

    with client(mover, patience_s=0.5) as disk, pytest.raises(ClientError):
        download(disk, target, bandwidth=100 * MIB, progress=kill_halfway, buffer_bytes=65536)
    assert halfway
    assert target.read_bytes() == b"old"
    server.start()
    with client(mover) as disk:
        download(disk, target)
    assert_same_disk(target, source)
    assert_nothing_beside(target)


def test_a_flipped_bit_fails_the_verification_and_is_kept(served: Served, room: Path) -> None:
    """What was moved is there to be looked at, and is not what was asked for; nothing appears under the name."""
    with Proxy(served.mover.tcp) as proxy:
        proxy.flip(2 * MIB)
        with (
            Client(proxy.url("small"), patience_s=5) as disk,
            pytest.raises(VerificationError) as failed,
        ):
            download(disk, room / "copy", verify=True, max_workers=1)
    assert not (room / "copy").exists()
    kept = Path(failed.value.kept)
    found, expected = kept.read_bytes(), pattern(1, 0, 8 * MIB)
    assert sum(a != b for a, b in zip(found, expected, strict=True)) == 1
    assert failed.value.expected != failed.value.found


def test_one_file_one_job(served: Served, room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes second is refused, and the first one is not disturbed."""
    refused: list[LocalError] = []

    def begin_another(now: Progress) -> None:
        if now.phase == "data" and not refused:
            with client(served.mover) as other, pytest.raises(LocalError, match="another job") as error:
                download(other, room / "copy")
            refused.append(error.value)

    monkeypatch.setattr(part, "LOCK_S", 0.1)
    with client(served.mover) as disk:
        download(disk, room / "copy", progress=begin_another)
    assert refused
    assert_same_disk(room / "copy", served.source)


@pytest.mark.parametrize("name", ["no/such/directory/copy", "."])
def test_a_place_that_cannot_be_written(name: str, served: Served, room: Path) -> None:
    """It is an error that names it, before anything is moved."""
    with client(served.mover) as disk, pytest.raises(LocalError):
        download(disk, room / name)


def test_a_whole_file_of_cloudstack(start_mover: StartMover, room: Path) -> None:
    """Its OPTIONS has neither extents nor zero: it is read by ranges, all of it data, and written as a whole."""
    source = make_disk(room / "source")
    transfers = room / "transfers"
    transfers.mkdir()
    (transfers / "disk").write_text(f'{{"backend": "file", "file": "{source}"}}')
    mover = start_mover({}, {"serve": {"transfer_dir": str(transfers)}})
    with client(mover) as disk:
        assert disk.options().features == {"flush"}
        download(disk, room / "copy")
    assert_same_disk(room / "copy", source)
    other = make_disk(room / "other", DISK_BYTES // 2, stamp=4)
    with client(mover) as disk:
        report = upload(disk, other, buffer_bytes=MIB)
    assert (report.size, report.flushed) == (DISK_BYTES // 2, True)
    assert source.read_bytes() == other.read_bytes()


def test_bandwidth_is_shared_by_all_workers(served: Served, room: Path) -> None:
    """A job is not faster than it may be."""
    with client(served.mover, "small") as disk:
        report = download(disk, room / "copy", bandwidth=16 * MIB, buffer_bytes=65536)
    # A buffer for each worker goes without waiting.
    assert report.seconds > (8 * MIB - 5 * 65536) / (16 * MIB)


def test_urls_that_are_none() -> None:
    """They are refused at once, with the reason."""
    for wrong in ("ftp://host/images/x", "http:///images/x", "http://host", "http://u@host/images/x", "x"):
        with pytest.raises(ValueError, match=r"."):
            Client(wrong)


def test_the_directory_is_left_as_it_was_if_there_is_no_image(served: Served, room: Path) -> None:
    """An id that nobody knows makes no file."""
    (room / "d").mkdir()
    with Client(url(served.mover, "nobody")) as disk, pytest.raises(ClientError, match="unknown image_id"):
        download(disk, room / "d" / "copy")
    assert os.listdir(room / "d") == []
