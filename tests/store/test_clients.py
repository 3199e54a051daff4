"""Glance's own command line with nothing configured: what it sends is on the disk, what is there is what it gets."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from tests.harness.fixtures import StartMover
from tests.harness.mover import ROOT
from tests.harness.waiting import PROGRAM_S
from tests.store.library import Library

pytestmark = pytest.mark.slow

GLANCE = ROOT / ".venv-openstack" / "bin" / "glance"
MIB = 1024 * 1024


def glance(library: Library, *arguments: str | Path) -> str:
    if not GLANCE.exists():
        reason = "Glance's client is missing: `.ci/setup openstack` installs it"
        pytest.fail(reason) if "CI" in os.environ else pytest.skip(reason)
    host, port = library.mover.tcp
    command = [GLANCE, "--os-image-url", f"http://{host}:{port}", "--os-auth-token", "any", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PROGRAM_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("disk_format", ["qcow2"])
def test_glance_creates_an_image_from_a_file_and_downloads_it(
    start_mover: StartMover, room: Path, disk_format: str
) -> None:
    library = Library(start_mover({}))
    raw, source, target = room / "raw", room / "source", room / "target"
    raw.write_bytes(random.Random(1).randbytes(5 * MIB) + bytes(3 * MIB + 512))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", disk_format, raw, source], check=True)
    created = glance(
        library, "image-create", "--file", source, "--name", "one", "--disk-format", disk_format,
        "--container-format", "bare",
    )  # fmt: skip
    [image] = [line.split("|")[2].strip() for line in created.splitlines() if line.startswith("| id ")]
    library.assert_whole(image, source.read_bytes())
    assert library.show(image)["virtual_size"] == raw.stat().st_size
    glance(library, "image-download", "--file", target, image)
    assert target.read_bytes() == source.read_bytes()
    glance(library, "image-delete", image)
    assert library.listing() == []
