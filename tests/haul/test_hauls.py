"""Disks into the library and back, worker to worker: the bytes are compared, the holes counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness import servers
from tests.harness.mover import Mover
from tests.harness.patterns import write_pattern
from tests.harness.servers import NbdServer
from tests.haul.hauls import MIB, PROGRAM, Hauls, allocated, assert_digests, patchwork, write_sparse

pytestmark = pytest.mark.nbd


class Disks:
    """NBD servers over files in one room."""

    def __init__(self, room: Path, endings: ExitStack) -> None:
        self.room = room
        self._endings = endings
        self._count = 0

    def file(self) -> Path:
        self._count += 1
        return self.room / f"disk-{self._count}"

    def serve(self, file: Path, **options: object) -> NbdServer:
        server = servers.qemu_nbd(self.room, file.name, file, **options)  # type: ignore[arg-type]
        self._endings.callback(server.close)
        return server.start()

    def blank(self, length: int) -> tuple[Path, NbdServer]:
        file = self.file()
        write_pattern(file, 9, length)
        return file, self.serve(file)


@pytest.fixture(scope="module")
def hauls(module_room: Path) -> Iterator[Hauls]:
    mover = Mover(module_room, {}, program=PROGRAM)
    try:
        yield Hauls(mover.start())
        mover.assert_log_clean()
    finally:
        mover.close()


@pytest.fixture
def disks(room: Path, endings: ExitStack) -> Disks:
    return Disks(room, endings)


@pytest.mark.parametrize("digests", [True, False])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_disk_of_any_layout_comes_and_goes_as_it_is(hauls: Hauls, disks: Disks, seed: int, digests: bool) -> None:
    """Neither the data's edges nor the size need any alignment; holes stay holes on both ways."""
    length = 24 * MIB + 512 * seed + (seed if digests else 0)
    data, runs = patchwork(seed, length)
    file = disks.file()
    write_sparse(file, length, data, runs)
    source = disks.serve(file, read_only=True)
    image, received = hauls.brought(source.uri(), digests=digests)
    padded = data + bytes(-len(data) % 512)  # as qemu-nbd serves it
    assert image.read_bytes() == padded
    assert allocated(image) <= allocated(file) + 16 * MIB // 4
    if digests:
        assert_digests(received, padded)
    else:
        assert (received["md5"], received["hash_value"]) == (None, None)
    target, server = disks.blank(len(padded) + 3 * MIB)
    tail = target.read_bytes()[len(padded) :]
    assert hauls.deliver(image, server.uri())["state"] == "done"
    assert target.read_bytes() == padded + tail
