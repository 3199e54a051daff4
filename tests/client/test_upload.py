"""Uploads: the image is the file afterwards, whatever it was before, and flushed."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from mover.client import Client, ClientError, LocalError, VerificationError, file_checksum, stream, upload, verify
from tests.client.conftest import (
    DISK_BYTES,
    Served,
    assert_nothing_beside,
    assert_same_disk,
    client,
    make_disk,
    qemu_img,
)
from tests.client.proxy import Proxy
from tests.harness.fixtures import Images, StartMover
from tests.harness.patterns import MIB, assert_same_file, pattern

pytestmark = pytest.mark.nbd


def make_qcow2(path: Path, source: Path) -> Path:
    """A qcow2 file with the same bytes."""
    qemu_img("convert", "-f", "raw", "-O", "qcow2", source, path)
    return path


@pytest.mark.parametrize("before", ["hole", "pattern"])
@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_the_image_is_the_file(
    image_format: str, before: str, images: Images, start_mover: StartMover, room: Path
) -> None:
    """Into an empty image, and over an old one; zeros that are there already are not written."""
    source = make_disk(room / "source")
    file = source if image_format == "raw" else make_qcow2(room / "source.qcow2", source)
    target = images.hole("target", DISK_BYTES) if before == "hole" else images.pattern("target", 9, DISK_BYTES)
    mover = start_mover({"disk": images.qemu_nbd(target)})
    with client(mover) as disk:
        report = upload(disk, file, verify=True)
        assert report.checksum == file_checksum(file) == disk.checksum()
    assert (report.size, report.flushed) == (DISK_BYTES, True)
    assert_same_disk(target, source)
    assert_nothing_beside(file)
    if before == "hole":
        assert target.stat().st_blocks * 512 <= report.data + MIB


def test_servers_that_can_do_less(images: Images, start_mover: StartMover, room: Path) -> None:
    """Without extents, without zeroing, without flush: the bytes are right, and the report says what was flushed."""
    source = make_disk(room / "source")
    for without in ("noextents", "nozero"):
        target = images.pattern(without, 9, DISK_BYTES)
        mover = start_mover({"disk": images.nbdkit(without, "file", str(target), filters=[without])})
        with client(mover) as disk:
            assert upload(disk, source, max_workers=2).flushed
        assert_same_disk(target, source)


def test_a_file_that_is_shorter_than_the_image(images: Images, start_mover: StartMover, room: Path) -> None:
    """The rest of the image reads as zeros afterwards."""
    source = images.pattern("source", 1, 5 * MIB + 512)
    target = images.pattern("target", 9, 8 * MIB)
    mover = start_mover({"disk": images.qemu_nbd(target)})
    with client(mover) as disk:
        upload(disk, source, verify=True)
    assert target.read_bytes() == source.read_bytes() + bytes(8 * MIB - 5 * MIB - 512)


def test_what_cannot_be_uploaded_is_refused_before_a_byte_is_sent(
    served: Served, images: Images, start_mover: StartMover, room: Path
) -> None:
    """A file that is larger than the image, a read-only image, a file that is not there or is no image."""
    target = images.pattern("target", 9, 4 * MIB)
    mover = start_mover({"disk": images.qemu_nbd(target)})
    before = target.read_bytes()
    qcow2 = make_qcow2(room / "disk.img", images.pattern("small", 1, MIB))
    with client(mover) as disk:
        with pytest.raises(LocalError, match="do not fit"):
            upload(disk, make_disk(room / "source"))
        with pytest.raises(LocalError, match="begins like a qcow2 file"):
            upload(disk, qcow2)
        with pytest.raises(LocalError, match="No such file"):
            upload(disk, room / "missing")
        with pytest.raises(LocalError, match="neither a file nor a block device"):
            upload(disk, Path("/dev/null"))
    with client(served.mover) as disk, pytest.raises(ClientError, match="read-only"):
        upload(disk, room / "source")
    assert target.read_bytes() == before


def test_a_flipped_bit_fails_the_verification(images: Images, start_mover: StartMover, room: Path) -> None:
    """What the server read back is not what was sent, or what was sent is not what arrived: both are seen."""
    source = images.pattern("source", 1, 8 * MIB)
    mover = start_mover({"disk": images.qemu_nbd(images.hole("target", 8 * MIB))})
    with Proxy(mover.tcp) as proxy:
        proxy.flip_sent(2 * MIB)
        with Client(proxy.url("disk")) as disk, pytest.raises(VerificationError):
            upload(disk, source, verify=True, max_workers=1)
    with client(mover) as disk:
        with pytest.raises(VerificationError, match="blake2b"):
            verify(disk, source)
        upload(disk, source)
        assert verify(disk, source).checksum == file_checksum(source)


def test_a_file_that_is_written_to_meanwhile_is_told(images: Images, start_mover: StartMover, room: Path) -> None:
    """The image may have some of both: that is no success."""
    source = make_disk(room / "source")
    mover = start_mover({"disk": images.qemu_nbd(images.hole("target", DISK_BYTES))})

    def touch(_: object) -> None:
        os.utime(source)

    with client(mover) as disk, pytest.raises(LocalError, match="written to meanwhile"):
        upload(disk, source, progress=touch)


def test_streams_are_the_whole_image(images: Images, start_mover: StartMover, served: Served, room: Path) -> None:
    """Out of a pipe into an image, and out of an image into a pipe; odd sizes; checksums made on the way."""
    target = images.pattern("target", 9, DISK_BYTES)
    mover = start_mover({"disk": images.qemu_nbd(target)})
    reading, writing = os.pipe()

    def produce() -> None:
        with os.fdopen(writing, "wb") as pipe, client(served.mover) as disk:
            stream.download(disk, pipe.fileno(), verify=True, buffer_bytes=300_000)

    producer = threading.Thread(target=produce)
    producer.start()
    with os.fdopen(reading, "rb") as pipe, client(mover) as disk:
        report = stream.upload(disk, pipe.fileno(), verify=True)
    producer.join()
    assert report.flushed
    assert_same_disk(target, served.source)


def test_a_stream_that_is_too_long_is_an_error(images: Images, start_mover: StartMover, room: Path) -> None:
    """And one whose reader leaves."""
    source = make_disk(room / "source")
    mover = start_mover({"disk": images.qemu_nbd(images.hole("target", MIB)), "source": images.qemu_nbd(source)})
    with source.open("rb") as file, client(mover) as disk, pytest.raises(LocalError, match="larger than the image"):
        stream.upload(disk, file.fileno())
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as pipe, client(mover, "source") as disk, pytest.raises(LocalError, match="Broken pipe"):
        stream.download(disk, pipe.fileno())


def test_the_checksum_of_a_file_is_the_servers(served: Served) -> None:
    """For every algorithm and block size."""
    with client(served.mover) as disk:
        for algorithm, block_size in (("blake2b", 4 * MIB), ("sha256", MIB), ("blake2s", 5 * MIB), ("md5", 16 * MIB)):
            theirs = disk.checksum(algorithm, block_size)
            assert theirs == file_checksum(served.source, algorithm=algorithm, block_bytes=block_size)


def test_files_are_left_as_they_were(images: Images, start_mover: StartMover, room: Path) -> None:
    """An upload writes to nothing but the image."""
    source = images.pattern("source", 1, MIB)
    mover = start_mover({"disk": images.qemu_nbd(images.hole("target", MIB))})
    before = sorted(room.iterdir())
    with client(mover) as disk:
        upload(disk, source)
    assert sorted(room.iterdir()) == before
    assert source.read_bytes() == pattern(1, 0, MIB)
    assert_same_file(room / "target", source)
