"""A running qemu with one disk and no guest: its monitor writes to the disk as a guest would."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

from tests.harness.waiting import PATIENCE_S, wait_until

PROGRAM = "qemu-system-x86_64"
DEVICE = "vda"
# Where the device has its block backend: requests enter there, above the filter that a backup puts in.
BACKEND = f"/machine/peripheral/{DEVICE}/virtio-backend"


class QemuSystem:
    """qemu-system with the qcow2 file as node `disk`, driven over QMP."""

    def __init__(self, room: Path, disk: Path) -> None:
        program = shutil.which(PROGRAM)
        assert program is not None, f"{PROGRAM} is missing: `make setup` installs it"
        self.qmp_socket = room / "qmp"
        blockdev = {
            "driver": "qcow2", "node-name": "disk", "discard": "unmap",
            "file": {"driver": "file", "filename": str(disk), "discard": "unmap"},
        }  # fmt: skip
        # Never started (-S): what writes is the monitor, through the device, as a guest's requests go.
        command = [program, "-machine", "pc", "-accel", "tcg", "-nodefaults", "-display", "none", "-S", "-m", "16"]
        command += ["-qmp", f"unix:{self.qmp_socket},server=on,wait=off", "-blockdev", json.dumps(blockdev)]
        command += ["-device", f"virtio-blk-pci,drive=disk,id={DEVICE}"]
        self._log = room / "qemu.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(PATIENCE_S)
        wait_until("qemu's monitor listens", self._connect)
        self._lines = self._sock.makefile("rb")
        self._line()  # the greeting
        self.do("qmp_capabilities")

    def _connect(self) -> bool:
        assert self.process.poll() is None, self._log.read_text()
        try:
            self._sock.connect(str(self.qmp_socket))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    def _line(self) -> dict[str, Any]:
        line: dict[str, Any] = json.loads(self._lines.readline())
        return line

    def do(self, command: str, **arguments: Any) -> Any:
        """A QMP command; `_` in names of arguments is `-`. Fails the test with qemu's words if it fails."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._sock.sendall(json.dumps({"execute": command, "arguments": named}).encode() + b"\n")
        while True:
            answer = self._line()
            if "event" not in answer:
                break
        assert "return" in answer, f"{command}: {answer}"
        return answer["return"]

    def qemu_io(self, command: str) -> None:
        """As the guest: `write -P 1 0 64k`. Fails the test if it fails."""
        said = self.do("human-monitor-command", command_line=f'qemu-io -d {BACKEND} "{command}"')
        assert said == "", said

    def close(self) -> None:
        """End it."""
        self._lines.close()
        self._sock.close()
        self.process.terminate()
        self.process.wait(PATIENCE_S)
