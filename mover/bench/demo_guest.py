"""The demo's third part: a running guest's disk into the library by one command, and a new disk of it by another."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shlex import join

from mover.bench import clients, disk
from mover.bench.exports import qemu_nbd
from mover.bench.guest import guest, last_stamp, stamps
from mover.bench.servers import HttpServer, mover

NAME = "guest"

Step = Callable[[str, float, int], None]
"""Told of each step: its name, its seconds, the bytes of the disk that it was about."""


@dataclass(frozen=True)
class GuestCopy:
    """The guest's disk, where everything goes, and who is told."""

    source: Path
    directory: Path
    size_bytes: int
    step: Step
    say: Callable[[str], None]

    def show(self) -> None:
        """All of it. Raises DifferenceError where the new disk is not the guest's at the point."""
        scratch, new = (
            disk.make_empty(self.directory / f"{name}.qcow2", self.size_bytes) for name in ("scratch", "new")
        )
        export = self.directory / "point"
        settings = f'[allow]\nnbd_sockets = ["{self.directory}"]\n'
        with guest(self.directory, self.source) as monitor, mover(self.directory, [], settings=settings) as http:
            monitor.begin_point(scratch, export)
            began = monitor.writes()
            self.say(
                "guest: a qemu whose guest never stops writing; by QMP its disk is exported as it is at one moment"
            )
            point = f"nbd+unix:///vda?socket={export}"
            self._image(http, "guest's disk to library", "import", "--name", NAME, point)
            with qemu_nbd(self.directory, new, "qcow2") as target:
                self._image(http, "library to a new disk", "export", NAME, target.uri())
            wrote = monitor.writes() - began
            self.say(f"guest: it has written {wrote} times meanwhile")
            disk.compare(point, new)
            self.say("compare: the new disk is the guest's at that moment")
            monitor.end_point()
        last = last_stamp(stamps(new))
        self.say(f"compare: of the guest's writes the new disk has all until number {last}, and none after it")

    def _image(self, http: HttpServer, name: str, *arguments: str) -> None:
        command = [sys.executable, "-m", "mover", "image", *arguments, "--url", http.base_url]
        seconds, _ = clients.timed(command)
        self.step(name, seconds, self.size_bytes)
        self.say(f"  mover image {join(arguments)}")
