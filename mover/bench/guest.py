"""A running guest that does nothing but write to its disk, and the monitor that backup software asks for its points."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mover.bench import clients, tools
from mover.bench.data import MIB
from mover.bench.errors import ClientError, DifferenceError
from mover.bench.processes import running

PROGRAM = "qemu-system-x86_64"
DISK = "disk"
ANSWER_S = 30.0
# What the guest writes: stamps 1, 2, 3, …, each at the beginning of a slot; after the last slot the first again.
# Measured on two busy processors: 30 writes a second. The BIOS waits for each.
SLOTS = 64
SLOT_BYTES = 32 * 1024
# For ever: the next stamp to 0x1000:0, its slot's sector into the packet, and from there to the BIOS's second disk.
_LISTING = """\
31c0 8ed8 b410 8ec0             |       xor ax, ax;  mov ds, ax;  mov ah, 0x10;  mov es, ax
66ff06507c                      | next: inc dword [0x7c50]
66a1507c 2666a30000             |       mov eax, [0x7c50];  mov [es:0], eax
66253f000000 66c1e006 66a3487c  |       and eax, 63;  shl eax, 6;  mov [0x7c48], eax
be407c b443 b000 b281 cd13      |       mov si, 0x7c40;  mov ah, 0x43;  mov al, 0;  mov dl, 0x81;  int 0x13
ebd7                            |       jmp next
"""
# The packet of int 0x13, at 0x7c40: its length, sectors, offset and segment of the data, and zeros for the sector.
_PACKET = struct.pack("<4HQ", 16, SLOT_BYTES // 512, 0, 0x1000, 0)


def boot_sector() -> bytes:
    """Return the guest, as the BIOS loads it, at 0x7c00."""
    code = b"".join(bytes.fromhex(line.partition("|")[0]) for line in _LISTING.splitlines())
    return (code.ljust(0x40, b"\0") + _PACKET).ljust(510, b"\0") + b"\x55\xaa"


class Monitor:
    """A qemu's QMP monitor, by a connection to its Unix socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lines = sock.makefile("rb")
        self._lines.readline()  # the greeting
        self.do("qmp_capabilities")

    def do(self, command: str, **arguments: Any) -> Any:
        """Do a command; `_` in names of arguments is `-`. Returns its answer; ClientError with qemu's words."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._sock.sendall(json.dumps({"execute": command, "arguments": named}).encode() + b"\n")
        answer: dict[str, Any] = {"event": ""}
        while "event" in answer:
            answer = json.loads(self._lines.readline() or b'{"error": "qemu has ended"}')
        if "return" not in answer:
            raise ClientError([PROGRAM, command], str(answer["error"]))
        return answer["return"]

    def writes(self) -> int:
        """Return how often the guest has written to its disk."""
        disks = self.do("query-blockstats")
        return int(next(each for each in disks if f"/{DISK}/" in each["qdev"])["stats"]["wr_operations"])

    def close(self) -> None:
        """Leave qemu alone."""
        self._lines.close()
        self._sock.close()

    def begin_point(self, scratch: Path, listen: Path) -> None:
        """Export the disk as it is at this moment, as `vda` at the socket `listen`, while the guest writes on.

        Before a block is overwritten, qemu copies what it was to `scratch`, a qcow2 file of the disk's size, which is
        there: docs/backup.md, "By QMP".
        """
        file = {"driver": "file", "filename": str(scratch)}
        self.do("blockdev-add", driver="qcow2", node_name="scratch", backing=DISK, file=file)
        self.do("blockdev-backup", device=DISK, target="scratch", sync="none", job_id="backup")
        self.do("nbd-server-start", addr={"type": "unix", "data": {"path": str(listen)}})
        self.do("block-export-add", type="nbd", id="export", node_name="scratch", name="vda")

    def end_point(self) -> None:
        """Stop exporting; the guest never notices."""
        self.do("nbd-server-stop")
        self.do("block-job-cancel", device="backup", force=True)


@contextlib.contextmanager
def guest(directory: Path, disk: Path) -> Iterator[Monitor]:
    """Run the guest on the qcow2 image `disk` for the time of the block; it has written to each slot before."""
    with tempfile.TemporaryDirectory(prefix="guest-", dir=directory) as name:
        room = Path(name)
        # The BIOS boots from no disk that is smaller than a cylinder.
        (room / "boot").write_bytes(boot_sector().ljust(MIB, b"\0"))
        command = [
            tools.path(PROGRAM),
            "-machine",
            "pc",
            "-accel",
            "tcg",
            "-nodefaults",
            "-display",
            "none",
            "-m",
            "16",
        ]
        command += ["-qmp", f"unix:{room / 'qmp'},server=on,wait=off"]
        for number, (node, image_format, file) in enumerate([("boot", "raw", room / "boot"), (DISK, "qcow2", disk)]):
            command += ["-blockdev", f"driver={image_format},node-name={node},file.driver=file,file.filename={file}"]
            command += ["-device", f"virtio-blk-pci,drive={node},id={node},bootindex={number}"]
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(running(PROGRAM, command, room / "log"))
            monitor = server.wait_until(lambda: _connected(room / "qmp"))
            stack.callback(monitor.close)
            server.wait_until(lambda: monitor.writes() >= SLOTS or None)
            yield monitor


def _connected(path: Path) -> Monitor | None:
    """Return the monitor, None while qemu does not listen."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(ANSWER_S)
    try:
        sock.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    return Monitor(sock)


def stamps(disk: Path) -> list[int]:
    """Return the stamp of each slot of a qcow2 image of the guest's disk."""
    with tempfile.TemporaryDirectory(dir=disk.parent) as name:
        raw = Path(name) / "slots"
        size = SLOTS * SLOT_BYTES
        disk_file = f"driver=raw,size={size},file.driver=qcow2,file.file.driver=file,file.file.filename={disk}"
        clients.timed(["qemu-img", "convert", "--image-opts", disk_file, "-O", "raw", str(raw)])
        with raw.open("rb") as slots:
            return [_stamp(slots, number) for number in range(SLOTS)]


def _stamp(slots: BinaryIO, number: int) -> int:
    slots.seek(number * SLOT_BYTES)
    return int.from_bytes(slots.read(4), "little")


def last_stamp(found: list[int]) -> int:
    """Return the last stamp of a point in time; DifferenceError where one before it is missing."""
    last = max(found)
    if sorted(found) != list(range(last - SLOTS + 1, last + 1)):
        raise DifferenceError(
            f"the copy of the guest's disk is no point in time: writes are missing before its last, {last}"
        )
    return last
