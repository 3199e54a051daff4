"""The harness as fixtures: a room in memory, and makers of servers that are ended with the test."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.harness import servers
from tests.harness.mover import PROGRAM, Mover, Tables
from tests.harness.patterns import sparse_file, write_pattern
from tests.harness.servers import NbdServer

RAM = Path("/dev/shm")


@pytest.fixture
def room() -> Iterator[Path]:
    """A directory for images and sockets: in memory where there is one, and with a path short enough for a socket."""
    with memory_room() as made:
        yield made


@contextmanager
def memory_room() -> Iterator[Path]:
    """The same for what outlives a test."""
    with tempfile.TemporaryDirectory(prefix="mover-test-", dir=RAM if RAM.is_dir() else None) as name:
        yield Path(name)


@pytest.fixture
def endings(room: Path) -> Iterator[ExitStack]:
    """What is to be closed at the end of the test, the last one first; only then its room goes, whoever uses both."""
    with ExitStack() as stack:
        yield stack


class Images:
    """Makes images and their servers in the test's room. Every server is started and will be ended."""

    def __init__(self, room: Path, endings: ExitStack) -> None:
        self.room = room
        self._endings = endings

    def pattern(self, name: str, image: int, length: int, stamp: int = 0) -> Path:
        """A file whose every block says image and offset (tests/harness/patterns.py)."""
        path = self.room / name
        write_pattern(path, image, length, stamp)
        return path

    def hole(self, name: str, length: int) -> Path:
        """A file of zeros that are not there."""
        path = self.room / name
        sparse_file(path, length)
        return path

    def qemu_nbd(self, image: Path, **options: object) -> NbdServer:
        """A running qemu-nbd of the file; `options` as for servers.qemu_nbd."""
        return self.run(servers.qemu_nbd(self.room, f"qemu-{image.name}", image, **options))  # type: ignore[arg-type]

    def nbdkit(self, name: str, *arguments: str, **options: object) -> NbdServer:
        """A running nbdkit; `arguments` and `options` as for servers.nbdkit."""
        return self.run(servers.nbdkit(self.room, name, *arguments, **options))  # type: ignore[arg-type]

    def run(self, server: NbdServer) -> NbdServer:
        """Start a server and have it ended with the test."""
        self._endings.callback(server.close)
        return server.start()


@pytest.fixture
def images(room: Path, endings: ExitStack) -> Images:
    """The maker of images and NBD servers."""
    return Images(room, endings)


StartMover = Callable[..., Mover]


@pytest.fixture
def start_mover(room: Path, endings: ExitStack) -> StartMover:
    """Starts `mover serve` for `{id: server or URI}`, with settings as `{table: {name: value}}`."""
    numbers = iter(range(1, 100))

    def start(
        images: Mapping[str, NbdServer | str],
        settings: Tables | None = None,
        front_ends: int = 1,
        *,
        program: Sequence[str] = PROGRAM,
        wait: bool = True,
    ) -> Mover:
        own = room / f"m{next(numbers)}"
        own.mkdir()
        mover = Mover(own, images, settings, front_ends, program)
        endings.callback(mover.close)
        if wait:
            mover.start()
        return mover

    return start
