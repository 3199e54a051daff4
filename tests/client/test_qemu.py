"""The private qemu-nbd: it says what is in a file, or why it cannot, and never outlives its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from mover.client import LocalError
from mover.client.qemu import QemuNbd, run
from tests.harness.mover import ROOT
from tests.harness.patterns import MIB
from tests.harness.waiting import wait_until

pytestmark = pytest.mark.nbd

SIZE = 64 * MIB

KILLED = """
import sys, time
from pathlib import Path
from mover.client.qemu import QemuNbd
disk = QemuNbd(Path(sys.argv[1]), "qcow2")
print(disk.connection.size_bytes, flush=True)
time.sleep(600)
"""


def make(path: Path) -> None:
    """An empty disk."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(SIZE)], check=True)


def test_bytes_and_zeros_are_read_as_they_are(room: Path) -> None:
    """Through many commands in flight, on a connection of one's own; and where there is no data is known."""
    path = room / "disk.qcow2"
    make(path)
    subprocess.run(["qemu-io", "-c", f"write -q -P 7 {2 * MIB} {6 * MIB}", path], check=True)
    qemu = QemuNbd(path, "qcow2")
    connection = qemu.connect()
    back = memoryview(bytearray(8 * MIB))
    ended: list[int] = []
    for at in range(0, 8 * MIB, MIB):
        connection.read(at, back[at : at + MIB], lambda at=at: ended.append(at))  # type: ignore[misc]
    connection.drain()
    connection.close()
    extents = qemu.connection.extents()
    qemu.close()
    assert sorted(ended) == list(range(0, 8 * MIB, MIB))
    assert back == bytes(2 * MIB) + b"\7" * (6 * MIB)
    assert extents == [(0, 2 * MIB, True), (2 * MIB, 6 * MIB, False), (8 * MIB, SIZE - 8 * MIB, True)]


def test_what_is_no_image_is_an_error_that_names_it(room: Path) -> None:
    """With what qemu-nbd said, and no process left."""
    path = room / "disk.qcow2"
    path.write_bytes(b"no image" * 1000)
    before = psutil.Process().children()
    with pytest.raises(LocalError, match="not in qcow2 format"):
        QemuNbd(path, "qcow2")
    assert psutil.Process().children() == before


def test_it_ends_with_its_owner(room: Path) -> None:
    """Killed with -9, a client leaves no qemu-nbd and no file, and the image's lock is free."""
    temporary = room / "tmp"
    temporary.mkdir()
    path = room / "disk.qcow2"
    make(path)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
    owner = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, env=environment)
    assert owner.stdout is not None
    with owner.stdout:
        assert owner.stdout.readline() == f"{SIZE}\n".encode()
        children = psutil.Process(owner.pid).children()
        assert [child.name() for child in children] == ["qemu-nbd"]
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    wait_until("qemu-nbd has ended", lambda: not children[0].is_running())
    run("qemu-img", "check", "-q", str(path), path=path)
    assert list(temporary.iterdir()) == []
