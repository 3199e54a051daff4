"""Tools that everybody has: each reads or writes a disk as it does anywhere else."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import DISK_BYTES, MIB, Place, run, same

pytestmark = pytest.mark.nbd


def tool(name: str) -> str:
    """The tool, or a skip."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is missing")
    return path


def test_curl_reads_a_range(place: Place, tmp_path: Path) -> None:
    """`curl -r`."""
    run(tool("curl"), "-sSf", "-r", "1000000-2999999", "-o", tmp_path / "part", place.url("disk-raw"))
    assert (tmp_path / "part").read_bytes() == (place.room / "disk.raw").read_bytes()[1_000_000:3_000_000]


@pytest.mark.parametrize("name", ["curl", "wget"])
def test_an_interrupted_download_goes_on(name: str, place: Place, tmp_path: Path) -> None:
    """`curl -C -` and `wget -c` take the rest only."""
    copy, whole = tmp_path / "copy", (place.room / "disk.raw").read_bytes()
    copy.write_bytes(whole[: 20 * MIB + 7])
    options = {"curl": ["-sSf", "-C", "-", "-o"], "wget": ["-q", "-c", "-O"]}[name]
    run(tool(name), *options, copy, place.url("disk-raw"))
    assert copy.read_bytes() == whole


@pytest.mark.parametrize("expect", ["Expect: 100-continue", "Expect:"])
def test_curl_uploads(expect: str, place: Place) -> None:
    """`curl -T`, whether it asks first or not."""
    done = run(tool("curl"), "-sSf", "-T", place.room / "disk.raw", "-H", expect, place.url("empty-raw"))
    assert f'"bytes_written":{DISK_BYTES}' in done
    same(place.room, "disk.raw", "raw", place.room / "empty.raw", "raw")


def test_nbdkit_serves_the_image_again(place: Place, tmp_path: Path) -> None:
    """`nbdkit curl`: HEAD, ranges and PUT with none."""
    copy = tmp_path / "copy"
    url = place.url("disk-qcow2")
    run(tool("nbdkit"), "-U", "-", "curl", f"url={url}", "--run", f'qemu-img convert -f raw -O raw "$uri" {copy}')
    assert copy.read_bytes() == (place.room / "disk.raw").read_bytes()


def test_qemu_img_reads_over_http(place: Place, tmp_path: Path) -> None:
    """`qemu-img convert` from `http:`, where qemu has its curl driver.

    By one coroutine: with several, qemu 7.2's driver forgets to wake one of them now and then, whatever the server.
    """
    copy, url = tmp_path / "copy", place.url("disk-raw")
    probe = subprocess.run([tool("qemu-img"), "info", url], capture_output=True, text=True)
    if "Unknown protocol" in probe.stderr:
        pytest.skip("this qemu-img has no driver for http")
    run(tool("qemu-img"), "convert", "-m", "1", "-f", "raw", "-O", "raw", url, copy)
    assert copy.read_bytes() == (place.room / "disk.raw").read_bytes()


def test_aria2_reads_by_eight_connections(place: Place, tmp_path: Path) -> None:
    """`aria2c -x 8 -s 8`."""
    options = ["-q", "-x", "8", "-s", "8", "-k", "1M", "--no-conf", "--file-allocation=none"]
    run(tool("aria2c"), *options, "-d", tmp_path, "-o", "copy", place.url("disk-raw"))
    assert (tmp_path / "copy").read_bytes() == (place.room / "disk.raw").read_bytes()
