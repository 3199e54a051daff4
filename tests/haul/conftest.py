"""One Mover for a module's hauls, and disks for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness import servers
from tests.harness.mover import Mover, Value
from tests.harness.patterns import write_pattern
from tests.harness.servers import NbdServer
from tests.haul.hauls import PROGRAM, Hauls
from tests.tickets.vdsm import Vdsm

# A disk whose server is gone is given up soon, but not before a busy host has it started again.
SETTINGS = {"worker": {"reconnect_s": 4.0, "settle_s": 0.2, "fence_s": 1.0, "idle_s": 1.0}}


class Disks:
    """NBD servers over files in one room, ended with the test."""

    def __init__(self, room: Path, endings: ExitStack) -> None:
        self.room = room
        self._endings = endings
        self._count = 0

    def file(self) -> Path:
        """A file that is not there yet."""
        self._count += 1
        return self.room / f"disk-{self._count}"

    def serve(self, file: Path, **options: object) -> NbdServer:
        """A qemu-nbd of a file."""
        return self.run(servers.qemu_nbd(self.room, file.name, file, **options))  # type: ignore[arg-type]

    def slow(self, file: Path) -> NbdServer:
        """A server that takes 20 ms for each read and write, one at a time."""
        filters, delay = ["delay"], ["rdelay=20ms", "wdelay=20ms"]
        return self.run(servers.nbdkit(self.room, file.name, "file", f"file={file}", *delay, filters=filters))

    def run(self, server: NbdServer) -> NbdServer:
        """Start a server and have it ended with the test."""
        self._endings.callback(server.close)
        return server.start()

    def pattern(self, length: int, image: int = 1) -> Path:
        """A file full of data."""
        file = self.file()
        write_pattern(file, image, length)
        return file


@pytest.fixture(scope="module")
def hauls(module_room: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hauls]:
    """A Mover with one front end, imageio's ticket service, and three stores, `far` on another file system."""
    serve = {"serve": {"ticket_socket": str(module_room / "tickets")}}
    places = {"file": module_room / "images", "near": module_room / "near", "far": tmp_path_factory.mktemp("far")}
    stores: list[dict[str, Value]] = [
        {"type": "file", "id": store, "directories": [str(place)]} for store, place in places.items()
    ]
    mover = Mover(module_room, {}, {**SETTINGS, **serve, "store": stores}, program=PROGRAM)
    try:
        yield Hauls(mover.start(), places)
        mover.assert_log_clean()
    finally:
        mover.close()


@pytest.fixture
def vdsm(hauls: Hauls) -> Vdsm:
    """The agent that installs tickets."""
    return Vdsm(hauls.mover.state_dir.parent / "tickets")


@pytest.fixture
def disks(room: Path, endings: ExitStack) -> Disks:
    """The maker of disks."""
    return Disks(room, endings)
