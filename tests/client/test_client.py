"""Client's methods against a real server: bytes, extents, zeros, flushes, errors."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest

from mover.client import Client, Extent, LostWritesError, RefusedError, UnreachableError
from tests.client.conftest import client, url
from tests.harness.fixtures import Images, StartMover
from tests.harness.patterns import MIB, pattern

pytestmark = pytest.mark.nbd

SIZE = 8 * MIB


def test_bytes_are_read_where_they_are(images: Images, start_mover: StartMover) -> None:
    """A buffer holds exactly the image's bytes of its range, whatever its edges."""
    mover = start_mover({"disk": images.qemu_nbd(images.pattern("disk", 1, SIZE))})
    with client(mover) as disk:
        assert disk.size() == SIZE
        for offset, length in ((0, SIZE), (1, 1), (SIZE - 5, 5), (12345, 3 * MIB + 1)):
            buffer = bytearray(length)
            disk.read_into(offset, buffer)
            assert buffer == pattern(1, offset, length), (offset, length)


def test_what_is_written_zeroed_and_flushed_is_there(images: Images, start_mover: StartMover) -> None:
    """Writes land at their offset, zeros too, and the file has them after the flush."""
    disk_file = images.hole("disk", SIZE)
    mover = start_mover({"disk": images.qemu_nbd(disk_file)})
    with client(mover) as disk:
        disk.write(1000, pattern(2, 1000, 2 * MIB))
        disk.zero(5000, 100)
        disk.flush()
    expected = bytearray(SIZE)
    expected[1000 : 1000 + 2 * MIB] = pattern(2, 1000, 2 * MIB)
    expected[5000:5100] = bytes(100)
    assert disk_file.read_bytes() == expected


def test_extents_are_those_of_the_image(images: Images, start_mover: StartMover) -> None:
    """They cover the image without gaps, and say where it is zero."""
    disk_file = images.hole("disk", SIZE)
    with disk_file.open("r+b") as file:
        file.seek(MIB)
        file.write(pattern(3, MIB, MIB))
    mover = start_mover({"disk": images.qemu_nbd(disk_file)})
    with client(mover) as disk:
        found = list(disk.extents())
        assert found == [
            Extent(0, MIB, zero=True, hole=True),
            Extent(MIB, MIB, zero=False),
            Extent(2 * MIB, SIZE - 2 * MIB, zero=True, hole=True),
        ]
        with pytest.raises(RefusedError) as refused:
            list(disk.extents("dirty"))
    assert refused.value.status == 404


def test_an_image_of_no_bytes(images: Images, start_mover: StartMover) -> None:
    """It has size 0 and no extents."""
    mover = start_mover({"disk": images.qemu_nbd(images.hole("disk", 0))})
    with client(mover) as disk:
        assert (disk.size(), list(disk.extents())) == (0, [])


def test_the_checksum_is_that_of_the_blocks(images: Images, start_mover: StartMover) -> None:
    """The outer hash over the digests of the blocks."""
    mover = start_mover({"disk": images.qemu_nbd(images.pattern("disk", 4, SIZE))})
    with client(mover) as disk:
        found = disk.checksum("sha256", MIB)
    blocks = (hashlib.sha256(pattern(4, at, MIB)).digest() for at in range(0, SIZE, MIB))
    assert found.checksum == hashlib.sha256(b"".join(blocks)).hexdigest()


def test_a_refusal_says_what_where_and_why(images: Images, start_mover: StartMover) -> None:
    """Its attributes have the range, the status and the server's reason; a refusal is not tried again."""
    mover = start_mover({"disk": images.qemu_nbd(images.pattern("disk", 1, SIZE), read_only=True)})
    with client(mover) as disk, pytest.raises(RefusedError) as refused:
        disk.write(MIB, pattern(1, 0, MIB))
    error = refused.value
    assert (error.status, error.operation, error.offset, error.length) == (403, "write", MIB, MIB)
    assert f"write of bytes {MIB} to {2 * MIB - 1}" in str(error)
    with client(mover, "nobody") as nobody, pytest.raises(RefusedError, match="unknown image_id"):
        nobody.options()


def test_a_service_that_is_not_there_is_unreachable() -> None:
    """Once the patience has ended, and not before."""
    waits: list[float] = []
    disk = Client("http://127.0.0.1:1/images/disk", patience_s=0.2, sleep=waits.append)
    with disk, pytest.raises(UnreachableError, match="cannot connect: Connection refused"):
        disk.size()
    assert len(waits) > 1


def test_lost_writes_are_told_with_their_ranges(images: Images, start_mover: StartMover) -> None:
    """A server that was replaced before the flush: the error has what must be written again, and then all is well."""
    server = images.qemu_nbd(images.hole("disk", SIZE))
    mover = start_mover({"disk": server})
    with client(mover) as disk:
        disk.write(MIB, pattern(5, MIB, MIB))
        server.kill()
        server.start()
        with pytest.raises(LostWritesError) as lost:
            disk.flush()
        assert lost.value.lost == [(MIB, MIB)]
        disk.write(MIB, pattern(5, MIB, MIB))
        disk.flush()


def test_the_unix_socket_is_used_when_it_is_the_same_server(images: Images, start_mover: StartMover) -> None:
    """The server names it, and is on this host: the connection is through it, unless that is not wanted."""
    mover = start_mover({"disk": images.qemu_nbd(images.pattern("disk", 1, SIZE))})
    with client(mover) as disk:
        disk.size()
        assert disk.by_unix_socket
    with Client(url(mover), unix_socket=None) as disk:
        disk.size()
        assert not disk.by_unix_socket
    with Client("http://elsewhere.invalid/images/disk", unix_socket=mover.unix) as disk:
        assert disk.size() == SIZE
        assert disk.by_unix_socket


def test_importing_the_client_brings_nothing_of_the_service() -> None:
    """Neither Sanic, nor the settings, nor a worker, nor libnbd."""
    program = "import sys, mover.client; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    roots = {name.partition(".")[0] for name in loaded}
    assert not roots & {"sanic", "config", "workers", "nbd", "libnbdmod", "rich", "shtab"}
