"""The library's example in docs/client.md, run as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.conftest import DISK_BYTES, assert_same_disk, make_disk, url
from tests.harness.fixtures import Images, StartMover
from tests.harness.mover import ROOT

pytestmark = pytest.mark.nbd

DOCUMENT = Path(ROOT, "docs", "client.md").read_text()


def test_ten_lines_download_and_upload(images: Images, start_mover: StartMover, room: Path) -> None:
    """The example moves a disk out of one image and into another."""
    example = re.search(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    assert example is not None
    source, target = make_disk(room / "source"), images.hole("target", DISK_BYTES)
    mover = start_mover({"disk": images.qemu_nbd(source, read_only=True), "other": images.qemu_nbd(target)})
    done = subprocess.run(
        [sys.executable, "-c", example[1], url(mover), url(mover, "other")],
        cwd=room, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{DISK_BYTES} ")
    assert_same_disk(target, source)
    assert_same_disk(room / "disk.qcow2", source, "qcow2")


def test_every_option_of_the_commands_is_in_the_document() -> None:
    """What `--help` offers, docs/client.md explains."""
    for command in ("download", "upload"):
        shown = subprocess.run(
            [sys.executable, "-m", "mover", command, "--help"], capture_output=True, text=True, check=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        ).stdout  # fmt: skip
        for option in set(re.findall(r"--[a-z-]+", shown)) - {"--help"}:
            assert option in DOCUMENT, option
