"""Block devices, by a loop device: written in place, zeros too, and read as they are."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mover.client import LocalError, download, file_checksum, upload
from tests.client.conftest import DISK_BYTES, Served, client
from tests.harness.fixtures import Images, StartMover
from tests.harness.patterns import MIB, assert_same_file

pytestmark = pytest.mark.nbd


@pytest.fixture
def device(images: Images, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Path]]:
    """A loop device, and the file behind it, which is larger than the disk by a MiB and full of other bytes."""
    file = images.pattern("behind", 8, DISK_BYTES + MIB)
    done = subprocess.run(["losetup", "--find", "--show", file], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no loop device: {done.stderr.strip()}")
    monkeypatch.setenv("XDG_STATE_HOME", str(images.room / "state"))
    path = Path(done.stdout.strip())
    yield path, file
    subprocess.run(["losetup", "--detach", path], check=True)


def test_a_download_onto_a_device(device: tuple[Path, Path], served: Served) -> None:
    """All of the image is there, what was there before is gone, and what is after it stays."""
    path, file = device
    after = file.read_bytes()[DISK_BYTES:]
    with client(served.mover) as disk:
        download(disk, path, verify=True)
    found = file.read_bytes()
    assert found[:DISK_BYTES] == served.source.read_bytes()
    assert found[DISK_BYTES:] == after


def test_a_download_onto_a_device_is_resumed(device: tuple[Path, Path], served: Served) -> None:
    """Its journal is under the state directory, as there is no place beside a device."""
    path, file = device

    def stop(now: object) -> None:
        if getattr(now, "done", 0) > 4 * MIB:
            raise InterruptedError

    with client(served.mover) as disk, pytest.raises(InterruptedError):
        download(disk, path, bandwidth=40 * MIB, buffer_bytes=65536, progress=stop)
    with client(served.mover) as disk:
        report = download(disk, path, resume=True)
    assert report.resumed > 0
    assert file.read_bytes()[:DISK_BYTES] == served.source.read_bytes()


def test_an_upload_from_a_device(device: tuple[Path, Path], images: Images, start_mover: StartMover) -> None:
    """Whole, and its checksum."""
    path, file = device
    target = images.hole("target", DISK_BYTES + MIB)
    mover = start_mover({"disk": images.qemu_nbd(target)})
    with client(mover) as disk:
        upload(disk, path, verify=True)
    assert_same_file(target, file)
    assert file_checksum(path) == file_checksum(file)


def test_devices_that_cannot_be_written(device: tuple[Path, Path], served: Served) -> None:
    """Too small, in use, or asked to hold qcow2: told before a byte is written."""
    path, file = device
    before = file.read_bytes()
    with client(served.mover, "empty") as disk, pytest.raises(LocalError, match="do not fit"):
        download(disk, path)
    with client(served.mover) as disk:
        with pytest.raises(LocalError, match="raw images only"):
            download(disk, path, image_format="qcow2")
        held = os.open(path, os.O_RDONLY | os.O_EXCL)
        try:
            with pytest.raises(LocalError, match="busy"):
                download(disk, path)
        finally:
            os.close(held)
    assert file.read_bytes() == before
