"""Hosts of a network, a `mover serve` on each, that share a registry and a bucket."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.harness.http import Address
from tests.harness.mover import Mover, Tables
from tests.library.service import Service
from tests.scale.network import Cabled


class HostMover(Mover):
    """A Mover in namespaces of its own, spoken to over its Unix socket: files are the same everywhere."""

    def __init__(self, room: Path, cabled: Cabled, settings: Tables) -> None:
        super().__init__(room, {}, settings, 2, (*cabled.enter, sys.executable, "-m", "mover"))
        self.cabled = cabled

    def address(self, unix: bool = False) -> Address:
        """Its Unix socket."""
        return self.unix


class Host(Service):
    """One host, as its clients and its operators know it."""

    def __init__(self, mover: HostMover) -> None:
        super().__init__(mover)
        self._here = mover

    @property
    def cabled(self) -> Cabled:
        """Its place in the network."""
        return self._here.cabled

    def kill(self) -> None:
        """All of its processes end at once, as in a power failure."""
        for process in self.mover.family():
            _signal(process, signal.SIGKILL)
        self.mover.process.wait()
        self.mover.wait_for_end()

    def freeze(self) -> None:
        """All of its processes stop where they are."""
        for process in self.mover.family():
            _signal(process, signal.SIGSTOP)

    def thaw(self) -> None:
        """They go on, and know of nothing."""
        for process in self.mover.family():
            _signal(process, signal.SIGCONT)

    def stored(self, image_id: str) -> bool:
        """Whether its own disk has a file of the image."""
        disk = self.mover.state_dir.parents[1] / "disk" / "images" / image_id
        return subprocess.run([*self.cabled.enter, "test", "-e", str(disk)], check=False).returncode == 0

    def read(self, image_id: str) -> bytes:
        """An image's bytes."""
        answer = self.ask("GET", f"/v2/images/{image_id}/file")
        assert answer.status == 200, answer
        return answer.body


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        pass
