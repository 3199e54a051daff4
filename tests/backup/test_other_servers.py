"""Backups from servers that are not Mover, and from ones that are slow or fail now and then."""

from __future__ import annotations

from pathlib import Path

import pytest

from mover.backup.repository import Repository
from mover.backup.restoring import restore_to_file
from mover.backup.taking import Wish, back_up
from mover.backup.uploading import restore_to_server
from mover.bench import exports, servers
from mover.client import Client
from tests.harness.changing import KIB, MIB, ChangingDisk
from tests.harness.fixtures import Images, StartMover
from tests.harness.patterns import assert_same_file

pytestmark = [pytest.mark.nbd, pytest.mark.slow]

NAME = "vm1/vda"
IMAGEIO = servers.find_imageio()


@pytest.mark.skipif(IMAGEIO is None, reason="ovirt-imageio is missing: `.ci/setup imageio` installs it")
def test_imageios_own_daemon_is_backed_up_and_restored_to(room: Path) -> None:
    """A full and an incremental of its dirty extents, and a point back into an image of its."""
    assert IMAGEIO is not None
    disk = ChangingDisk(room / "disk.qcow2", 16 * MIB)
    disk.write(0, 5 * MIB, 1)
    disk.begin_bitmap("b0")
    repository = Repository(room / "repo").make_disk(NAME)
    models = []
    for incremental in (False, True):
        if incremental:
            disk.write(MIB, 100 * KIB, 2)
            disk.zero(3 * MIB, MIB)
            disk.apply()
        models.append(bytes(disk.model))
        with exports.qemu_nbd(room, disk.path, "qcow2", read_only=True, bitmap="b0") as export:
            image = servers.Image("vda", export, 16 * MIB, bitmap="b0")
            with servers.imageio(IMAGEIO, room, [image]) as http, Client(http.url("vda")) as client:
                back_up(repository, client, Wish(incremental, verify=True))
    assert [each.kind for each in repository.points()] == ["full", "incremental"]
    for point, model in enumerate(models, start=1):
        restore_to_file(repository, point, room / f"{point}.raw", "raw")
        assert (room / f"{point}.raw").read_bytes() == model
    target = room / "target.raw"
    target.write_bytes(b"\xff" * 16 * MIB)
    with exports.qemu_nbd(room, target) as export:
        image = servers.Image("target", export, 16 * MIB)
        with servers.imageio(IMAGEIO, room, [image]) as http, Client(http.url("target")) as client:
            restore_to_server(repository, 2, client)
    assert target.read_bytes() == models[1]


@pytest.mark.parametrize("trouble", [["error", "error-pread-rate=0.1"], ["delay", "rdelay=20ms"]])
def test_a_server_that_is_slow_or_fails_now_and_then_is_backed_up(
    room: Path, images: Images, start_mover: StartMover, trouble: list[str]
) -> None:
    """Reads that fail are tried again; the point is the image."""
    source = images.pattern("source.raw", 1, 24 * MIB)
    name, option = trouble
    server = images.nbdkit("source", "file", f"file={source}", option, filters=[name], read_only=True)
    mover = start_mover({"disk": server})
    repository = Repository(room / "repo").make_disk(NAME)
    with Client(f"http://127.0.0.1:{mover.tcp[1]}/images/disk") as client:
        back_up(repository, client, Wish(incremental=False))
    restore_to_file(repository, None, room / "restored.raw", "raw")
    assert_same_file(room / "restored.raw", source)
