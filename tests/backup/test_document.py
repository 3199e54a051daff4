"""docs/backup.md is true: the commands of its first section work as they stand, and its Python."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness.changing import MIB, run
from tests.harness.mover import ROOT, Mover
from tests.harness.servers import qemu_nbd
from tests.harness.waiting import PROGRAM_S

pytestmark = [pytest.mark.nbd, pytest.mark.slow]

DOCUMENT = ROOT / "docs" / "backup.md"


def section(title: str) -> list[str]:
    """The indented lines of a section."""
    text = DOCUMENT.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return [line.removeprefix("    ") for line in text.splitlines() if line.startswith("    ")]


def test_the_first_backup_works_as_it_stands(room: Path, endings: ExitStack) -> None:
    """Every command of it but the two servers, which are started as it says, elsewhere."""
    commands = section("A first backup")
    servers = [line for line in commands if line.endswith("&")]
    assert [line.split()[0] for line in servers] == ["qemu-nbd", "mover"]
    made = [line for line in commands if line.startswith("qemu-img")]
    for line in made:
        subprocess.run(line, shell=True, cwd=room, check=True, capture_output=True, timeout=PROGRAM_S)
    export = qemu_nbd(room, "vm1", room / "disk.qcow2", image_format="qcow2", bitmap="nightly")
    endings.callback(export.close)
    mover = Mover(room, {"vm1": f"{export.start().uri()}&bitmap=nightly"})
    endings.callback(mover.close)
    mover.start()
    for line in commands:
        if line not in servers and line not in made:
            perform(line, room, mover, export.socket)
    python = "\n".join(line for line in section("For machines"))
    assert "back_up" in python
    perform_python(python, room, mover)
    run("qemu-io", "-f", "raw", "-c", f"read -P 1 {MIB} {MIB}", room / "third.raw")
    run("qemu-io", "-f", "qcow2", "-c", f"read -P 0 0 {4 * MIB}", room / "before.qcow2")
    run("qemu-io", "-f", "qcow2", "-c", f"read -P 1 {MIB} {MIB}", room / "after.qcow2")


def perform_python(text: str, room: Path, mover: Mover) -> None:
    """Run the document's Python, in the place of its first section."""
    code = text.replace("127.0.0.1:54322", f"127.0.0.1:{mover.tcp[1]}").replace('"/backup"', repr(str(room / "backup")))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=room, env=environment, capture_output=True, text=True, timeout=PROGRAM_S)
    assert done.returncode == 0, done.stderr


def perform(line: str, room: Path, mover: Mover, socket: Path) -> None:
    """Run one line of the document, with the paths and the port of this test."""
    command = line.replace("127.0.0.1:54322", f"127.0.0.1:{mover.tcp[1]}").replace("/run/vm1.nbd", str(socket))
    command = command.replace("/backup", str(room / "backup"))
    command = re.sub(r"^mover ", f"{sys.executable} -m mover ", command)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, shell=True, cwd=room, env=environment, capture_output=True, text=True, timeout=PROGRAM_S
    )
    assert done.returncode == 0, f"{line}: {done.stderr}"
