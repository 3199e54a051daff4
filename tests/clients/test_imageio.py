"""The unmodified client of oVirt imageio, with so many workers, on raw and qcow2 disks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.clients.conftest import Place, run, same
from tests.clients.imageio_client import IMAGEIO, imageio
from tests.harness.fixtures import StartMover
from tests.harness.http import ask
from tests.harness.servers import NbdServer

pytestmark = [
    pytest.mark.nbd,
    pytest.mark.skipif(IMAGEIO is None, reason="ovirt-imageio is missing: `.ci/setup imageio` installs it"),
]


@pytest.mark.parametrize("workers", [1, 4, 8])
@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_upload(image_format: str, workers: int, place: Place) -> None:
    """A disk of each format is the image afterwards, byte for byte."""
    image = f"empty-{image_format}"
    imageio("upload", place.room / f"disk.{image_format}", place.url(image), workers)
    same(place.room, "disk.raw", "raw", f"nbd+unix:///?socket={place.room}/{image}.nbd", "raw")


@pytest.mark.parametrize("workers", [1, 4, 8])
@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_download(image_format: str, workers: int, place: Place, tmp_path: Path) -> None:
    """The image is a file of each format afterwards, byte for byte."""
    imageio("download", place.url(f"disk-{image_format}"), tmp_path / "copy", image_format, workers)
    same(place.room, "disk.raw", "raw", tmp_path / "copy", image_format)


@pytest.mark.parametrize("workers", [1, 4, 8])
def test_incremental_download(workers: int, place: Place, tmp_path: Path) -> None:
    """What a bitmap recorded, and nothing else, is in the file."""
    imageio("download", place.url("disk-qcow2"), tmp_path / "copy", "qcow2", workers, "incremental")
    mapped = json.loads(run("qemu-img", "map", "--output=json", tmp_path / "copy"))
    assert [(one["start"], one["length"]) for one in mapped if one["data"]] == [(7 << 20, 256 << 10)]


@pytest.mark.parametrize("context", ["zero", "dirty"])
def test_extents(context: str, place: Place) -> None:
    """The client reads the extents that Mover sends."""
    found = json.loads(imageio("extents", place.url("disk-qcow2"), context))
    answer = ask(place.mover.tcp, "GET", f"/images/disk-qcow2/extents?context={context}")
    assert found == answer.json()


def test_one_layer_of_a_chain_tells_what_was_zeroed_from_what_is_not_there(start_mover: StartMover, room: Path) -> None:
    """Shallow downloads leave out holes: a zeroed cluster that was one would let the backing file show."""
    cluster = 64 << 10
    run("qemu-img", "create", "-q", "-f", "qcow2", room / "base.qcow2", str(4 * cluster))
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", room / "top.qcow2")
    writes = ("-c", f"write -q -P 1 {cluster} {cluster}", "-c", f"write -q -z {2 * cluster} {cluster}")
    run("qemu-io", "-f", "qcow2", *writes, room / "top.qcow2")
    layer = {"driver": "qcow2", "file": {"driver": "file", "filename": str(room / "top.qcow2")}, "backing": None}
    serve = ["qemu-nbd", "--persistent", "--pid-file={pid}", "--allocation-depth", "--read-only"]
    source = NbdServer(room, "layer", [*serve, "json:" + json.dumps(layer)])
    try:
        mover = start_mover({"top": source.start().uri()})
        found = ask(mover.tcp, "GET", "/images/top/extents").json()
    finally:
        source.close()
    told = [(one["start"] // cluster, one["length"] // cluster, one["zero"], one["hole"]) for one in found]
    assert told == [(0, 1, True, True), (1, 1, False, False), (2, 1, True, False), (3, 1, True, True)]


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_checksum(image_format: str, place: Place) -> None:
    """Mover's checksum of an image is the client's of the file."""
    theirs = json.loads(imageio("checksum", place.room / f"disk.{image_format}"))
    answer = ask(place.mover.tcp, "GET", f"/images/disk-{image_format}/checksum")
    assert (answer.status, answer.json()) == (200, theirs)
