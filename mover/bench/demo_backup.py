"""The demo's second part: a full backup of its disk, a change, an incremental; both restored and compared."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shlex import join

from mover.bench import clients, disk
from mover.bench.data import MIB
from mover.bench.exports import qemu_nbd
from mover.bench.servers import Image, mover

NAME = "demo/disk"
BITMAP = "since-full"
# What the guest does between the two: new data over old, in two places, and zeros over old.
CHANGE_BYTES = 8 * MIB
ZERO_BYTES = 16 * MIB

Step = Callable[[str, float, int], None]
"""Told of each step: its name, its seconds, the bytes of the disk that it was about."""


@dataclass(frozen=True)
class Backups:
    """The disk, a copy of it as it is now, where everything goes, and who is told."""

    source: Path
    before: Path
    directory: Path
    size_bytes: int
    step: Step
    say: Callable[[str], None]

    def show(self) -> None:
        """All of it. Raises DifferenceError where a point restored is not the disk as it was."""
        clients.timed(["qemu-img", "bitmap", "--add", "-f", "qcow2", str(self.source), BITMAP])
        with (
            qemu_nbd(self.directory, self.source, "qcow2", bitmap=BITMAP) as export,
            mover(self.directory, [Image("vm", export, self.size_bytes, bitmap=BITMAP)]) as http,
        ):
            url = http.url("vm")
            self._backup("full backup", "full", url, "--bitmap", BITMAP)
            self._change(url)
            self._backup("incremental backup", "incremental", url, "--bitmap", BITMAP)
        self._backup("verify both", "verify")
        for point, original in ((1, self.before), (2, self.source)):
            restored = self.directory / f"point-{point}.qcow2"
            self._backup(f"restore point {point}", "restore", "--point", str(point), str(restored))
            disk.compare(original, restored)
            self.say(f"compare: point {point} restored is the disk {'before' if point == 1 else 'after'} the change")

    def _backup(self, name: str, action: str, *arguments: str) -> None:
        common = ["--repo", str(self.directory / "repository"), "--name", NAME]
        seconds, output = clients.timed([sys.executable, "-m", "mover", "backup", action, *arguments, *common])
        self.step(name, seconds, self.size_bytes)
        self.say(f"  mover backup {join([action, *arguments])} …: {output.strip()}")

    def _change(self, url: str) -> None:
        """Through Mover, as a guest would: qemu-nbd records it in the bitmap."""
        new = self.directory / "new"
        new.write_bytes(random.Random(1).randbytes(CHANGE_BYTES))
        for place in (0, self.size_bytes // 3 // MIB * MIB + 512):
            content_range = f"Content-Range: bytes {place}-{place + CHANGE_BYTES - 1}/*"
            clients.timed(clients.curl("--header", content_range, "--upload-file", str(new), url))
        body = f'{{"op": "zero", "offset": {self.size_bytes // 4 // MIB * MIB}, "size": {ZERO_BYTES}, "flush": true}}'
        json_body = ["--header", "Content-Type: application/json", "--data", body]
        clients.timed(clients.curl("--request", "PATCH", *json_body, url))
        new.unlink()
        self.say(f"change: {2 * CHANGE_BYTES // MIB} MiB of new data and {ZERO_BYTES // MIB} MiB of zeros")
