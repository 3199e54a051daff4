"""A qcow2 disk that changes, with real dirty bitmaps, and a model of what is on it."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.harness.waiting import PROGRAM_S

KIB = 1024
MIB = 1024 * KIB
CLUSTER_BYTES = 64 * KIB
SECTOR_BYTES = 512


def run(*command: object) -> str:
    """Run a program to its end; what it printed. Fails the test if it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PROGRAM_S, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{words}: {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


class ChangingDisk:
    """A new qcow2 file that nobody has open, and `model`, the bytes that a guest would read of it.

    Changes are noted first and made by one qemu-io (`apply`), which records them in every bitmap that is enabled.
    """

    def __init__(self, path: Path, size_bytes: int, bitmap_granularity: int = CLUSTER_BYTES) -> None:
        self.path = path
        self.model = bytearray(size_bytes)
        self._granularity = bitmap_granularity
        self._noted: list[str] = []
        path.unlink(missing_ok=True)
        run("qemu-img", "create", "-q", "-f", "qcow2", path, size_bytes)

    def write(self, offset: int, length: int, fill: int) -> None:
        """Bytes of `fill`; multiples of 512."""
        self._noted.append(f"write -q -P {fill} {offset} {length}")
        self.model[offset : offset + length] = bytes([fill]) * length

    def zero(self, offset: int, length: int, *, unmap: bool = False) -> None:
        """Zeros, by a request for zeros."""
        self._noted.append(f"write -q -z {'-u ' if unmap else ''}{offset} {length}")
        self.model[offset : offset + length] = bytes(length)

    def trim(self, offset: int, length: int) -> None:
        """A discard, which qcow2 makes zeros; whole clusters only."""
        assert offset % CLUSTER_BYTES == length % CLUSTER_BYTES == 0
        self._noted.append(f"discard -q {offset} {length}")
        self.model[offset : offset + length] = bytes(length)

    def apply(self) -> None:
        """Make the changes that were noted."""
        if self._noted:
            commands = [word for change in self._noted for word in ("-c", change)]
            run("qemu-io", "-f", "qcow2", "-d", "unmap", *commands, self.path)
            self._noted.clear()

    def grow(self, size_bytes: int) -> None:
        """Make the disk larger, after what was noted."""
        self.apply()
        run("qemu-img", "resize", "-q", "-f", "qcow2", self.path, size_bytes)
        self.model.extend(bytes(size_bytes - len(self.model)))

    def begin_bitmap(self, name: str) -> None:
        """Have a persistent bitmap record what changes from now on."""
        self.apply()
        run("qemu-img", "bitmap", "--add", "-g", self._granularity, "-f", "qcow2", self.path, name)

    def change_at_random(self, chance: random.Random, fill: int, changes: int = 12) -> None:
        """Writes, zeros and trims all over the disk, small and large, partly over each other."""
        size = len(self.model)
        for _ in range(changes):
            kind = chance.choice(["write", "write", "small", "zero", "unmap", "trim"])
            unit = CLUSTER_BYTES if kind == "trim" else SECTOR_BYTES
            most = 8 * SECTOR_BYTES if kind == "small" else size // 16
            offset = chance.randrange(0, size - unit, unit)
            length = min(unit * chance.randint(1, max(1, most // unit)), (size - offset) // unit * unit)
            if kind == "trim":
                self.trim(offset, length)
            elif kind in ("zero", "unmap"):
                self.zero(offset, length, unmap=kind == "unmap")
            else:
                self.write(offset, length, fill)


def assert_same_disk(first: Path, first_format: str, second: Path, second_format: str) -> None:
    """qemu-img says that both hold the same."""
    run("qemu-img", "compare", "-f", first_format, "-F", second_format, first, second)


def assert_sound(image: Path, chain: Sequence[str]) -> None:
    """qemu-img finds no fault in a qcow2 file, and these files below it (names, the file itself first)."""
    run("qemu-img", "check", "-q", "-f", "qcow2", image)
    info = run("qemu-img", "info", "-f", "qcow2", "--backing-chain", image)
    named = [Path(line.partition(": ")[2]).name for line in info.splitlines() if line.startswith("image: ")]
    assert named == list(chain), info
