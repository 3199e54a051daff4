"""Backups of a disk that a running qemu writes to: in pull mode with checkpoints, by the commands that libvirt uses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.backup.served import backup
from tests.harness.changing import KIB, MIB, ChangingDisk, assert_same_disk, run
from tests.harness.mover import ROOT, Mover
from tests.harness.qemu_system import QemuSystem
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.nbd, pytest.mark.slow]

DOCUMENT = ROOT / "docs" / "backup.md"
NAME = "vm1/vda"
EXPORT = "vda"
BITMAP = "backup-vda"


def documented(scratch: Path, socket: Path, checkpoint: str, since: str | None) -> list[dict[str, Any]]:
    """The commands as docs/backup.md has them, with these paths and names; for a full backup cut as it says."""
    text = DOCUMENT.read_text().partition("\n### By QMP\n")[2].partition("\nthen the incremental")[0]
    json_text = "".join(line for line in text.splitlines(keepends=True) if line.startswith("    "))
    names = {"/scratch/vm1-vda": str(scratch), "/run/backup/vm1.nbd": str(socket), "cp2": checkpoint}
    names |= {"cp1": since} if since is not None else {}
    commands: list[dict[str, Any]] = []
    while json_text := json_text.strip():
        command, end = json.JSONDecoder(object_hook=lambda found: _renamed(found, names)).raw_decode(json_text)
        commands.append(command)
        json_text = json_text[end:]
    add, transaction, start, export = commands
    if since is None:
        del transaction["arguments"]["actions"][-2:]
        del export["arguments"]["bitmaps"]
    return [add, transaction, start, export]


def _renamed(found: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    def renamed(value: Any) -> Any:
        return names.get(value, value) if isinstance(value, str) else value

    return {
        key: [renamed(each) for each in value] if isinstance(value, list) else renamed(value)
        for key, value in found.items()
    }


class Guest:
    """A running qemu's disk of 16 MiB, and what is on it."""

    def __init__(self, room: Path) -> None:
        disk = ChangingDisk(room / "disk.qcow2", 16 * MIB)
        self.room = room
        self.model = disk.model
        self.qemu = QemuSystem(room, disk.path)

    def write(self, offset: int, length: int, fill: int) -> None:
        self.qemu.qemu_io(f"write -q -P {fill} {offset} {length}")
        self.model[offset : offset + length] = bytes([fill]) * length

    def zero(self, offset: int, length: int) -> None:
        self.qemu.qemu_io(f"write -q -z -u {offset} {length}")
        self.model[offset : offset + length] = bytes(length)

    @contextmanager
    def backing_up(self, checkpoint: str, since: str | None, socket: Path) -> Iterator[None]:
        """As virDomainBackupBegin and virDomainAbortJob do it: a fleecing export of this point in time.

        The guest's writes go on; before each, qemu copies what it overwrites to a scratch file, and the export is
        that file over the disk. The checkpoint's bitmap begins in the same instant, and what the bitmaps since
        `since` have recorded is merged into one for the export.
        """
        qemu, scratch = self.qemu, self.room / f"scratch-{checkpoint}.qcow2"
        run("qemu-img", "create", "-q", "-f", "qcow2", scratch, len(self.model))
        for command in documented(scratch, socket, checkpoint, since):
            qemu.do(command["execute"], **command["arguments"])
        try:
            yield
        finally:
            qemu.do("nbd-server-stop")
            qemu.do("block-job-cancel", device="backup", force=True)
            self._await_no_jobs()
            if since is not None:
                qemu.do("block-dirty-bitmap-remove", node="disk", name=BITMAP)
                qemu.do("block-dirty-bitmap-remove", node="disk", name=since)
            qemu.do("blockdev-del", node_name="scratch")
            scratch.unlink()

    def _await_no_jobs(self) -> None:
        wait_until("the backup job has ended", lambda: not self.qemu.do("query-block-jobs"))


def test_a_running_disk_is_backed_up_as_it_was_at_the_checkpoint(room: Path, endings: ExitStack) -> None:
    """A full and two incrementals, each while the guest writes on: what the disk held when each of them began."""
    guest = Guest(room)
    endings.callback(guest.qemu.close)
    sockets = [room / f"nbd-{number}" for number in range(3)]
    (room / "mover").mkdir()
    urls = {f"vda{n}": f"nbd+unix:///{EXPORT}?socket={socket}" for n, socket in enumerate(sockets)}
    images = {image: url + (f"&bitmap={BITMAP}" if image != "vda0" else "") for image, url in urls.items()}
    mover = Mover(room / "mover", images)
    endings.callback(mover.close)
    mover.start()
    repo, models = room / "repo", []
    guest.write(0, 6 * MIB, 0xA1)
    guest.write(9 * MIB, 100 * KIB, 0xA2)
    for number in range(3):
        since = f"cp{number - 1}" if number else None
        models.append(bytes(guest.model))
        with guest.backing_up(f"cp{number}", since, sockets[number]):
            # The guest goes on: over what is backed up, over what has changed, and in new places.
            guest.write(MIB, MIB, 0xB0 + number)
            guest.zero(3 * MIB + number * MIB, 512 * KIB)
            kind = ["incremental", "--bitmap", since] if since else ["full"]
            url = f"http://127.0.0.1:{mover.tcp[1]}/images/vda{number}"
            assert backup(*kind, url, "--repo", repo, "--name", NAME, "--checkpoint", f"cp{number}") == 0
            guest.write(12 * MIB + number * 64 * KIB, 32 * KIB, 0xC0 + number)
    for number, model in enumerate(models):
        target = room / f"restored-{number}.raw"
        assert backup("restore", "--repo", repo, "--name", NAME, "--point", number + 1, target) == 0
        assert target.read_bytes() == model, f"point {number + 1}"
        assert_same_disk(target, "raw", repo / NAME / f"{number + 1:06}.qcow2", "qcow2")
    sizes = [(repo / NAME / f"{number:06}.qcow2").stat().st_size for number in (2, 3)]
    assert max(sizes) < 3 * MIB, "an incremental holds only what the bitmap says"
