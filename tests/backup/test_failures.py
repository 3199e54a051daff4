"""Backups and restores while servers and clients are killed, disks fill up, and somebody interrupts."""

from __future__ import annotations

import itertools
import os
import random
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from mover.backup.errors import RepositoryError
from mover.backup.pruning import Keep, prune
from mover.backup.repository import Disk, Repository
from mover.backup.restoring import FileFormat, restore_to_file
from mover.backup.taking import Wish, back_up
from mover.backup.uploading import restore_to_server
from mover.backup.verifying import verify
from mover.client import Client, ClientError
from tests.backup.conftest import Chain
from tests.harness.fixtures import Images, memory_room
from tests.harness.mover import ROOT, Mover
from tests.harness.patterns import mapped, write_pattern
from tests.harness.servers import NbdServer, qemu_nbd
from tests.harness.waiting import PATIENCE_S

pytestmark = [pytest.mark.nbd, pytest.mark.slow]

MIB = 1024 * 1024
SIZE = 64 * MIB
NAME = "vm1/vda"


class House:
    """One Mover with an image to read, of which every block says what it is, and one to write."""

    def __init__(self, room: Path) -> None:
        self.room = room
        self.source = room / "source.raw"
        write_pattern(self.source, 1, SIZE)
        self.target = room / "target.raw"
        self.target.touch()
        os.truncate(self.target, SIZE + MIB)
        self.servers = {name: qemu_nbd(room, name, room / f"{name}.raw") for name in ("source", "target")}
        own = room / "mover"
        own.mkdir()
        self.mover = Mover(own, self.servers, {"worker": {"reconnect_s": 5.0}}, front_ends=2)

    def start(self) -> None:
        for server in self.servers.values():
            server.start()
        self.mover.start()

    def close(self) -> None:
        self.mover.close()
        for server in self.servers.values():
            server.close()

    def client(self, image: str, patience_s: float = 30.0) -> Client:
        """By the Unix socket, which is the same when Mover was started again."""
        url = f"http://127.0.0.1:{self.mover.tcp[1]}/images/{image}"
        return Client(url, unix_socket=self.mover.unix, patience_s=patience_s)


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """Built once: each test leaves it running."""
    with memory_room() as room, closing(House(room)) as house:
        house.start()
        yield house


@pytest.fixture
def disk(room: Path) -> Disk:
    """A disk without points."""
    return Repository(room / "repo").make_disk(NAME)


def restart_nbd(server: NbdServer) -> None:
    server.kill()
    server.start()


def restart_mover(house: House) -> None:
    house.mover.signal(signal.SIGKILL)
    house.mover.wait_for_end()
    house.mover.start()


EVENTS: dict[str, Callable[[House, str], object]] = {
    "worker": lambda house, image: house.mover.kill_worker(house.servers[image]),
    "front end": lambda house, image: os.kill(house.mover.front_end_pids()[0], signal.SIGKILL),
    "NBD server": lambda house, image: restart_nbd(house.servers[image]),
    "service": lambda house, image: restart_mover(house),
}


def at_request(monkeypatch: pytest.MonkeyPatch, method: str, number: int, event: Callable[[], object]) -> None:
    """Have something happen before the `number`th request of this kind of any client."""
    calls = itertools.count(1)
    real = getattr(Client, method)

    def request(client: Client, *arguments: object) -> object:
        if next(calls) == number:
            event()
        return real(client, *arguments)

    monkeypatch.setattr(Client, method, request)


@pytest.mark.parametrize("event", EVENTS)
def test_a_backup_goes_on_when_a_server_was_killed(
    house: House, disk: Disk, room: Path, event: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Range by range it is tried again until whoever was killed is there again; the point is the image."""
    at_request(monkeypatch, "read_into", 6, lambda: EVENTS[event](house, "source"))
    with house.client("source") as client:
        back_up(disk, client, Wish(incremental=False))
    assert_holds(disk, house.source, room)


def assert_holds(disk: Disk, source: Path, room: Path) -> None:
    """The newest point is the file."""
    target = room / "restored.raw"
    restore_to_file(disk, None, target, "raw")
    with mapped(target) as found, mapped(source) as expected:
        assert found[: len(expected)] == expected
    target.unlink()


@pytest.mark.parametrize("event", EVENTS)
def test_a_restore_to_a_server_goes_on_when_it_was_killed(
    house: House, disk: Disk, event: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was lost with it is sent again; the image is the point, and what is behind the point is zeros."""
    with house.client("source") as client:
        back_up(disk, client, Wish(incremental=False))
    with house.target.open("r+b") as file:
        file.write(b"\xff" * (SIZE + MIB))
    at_request(monkeypatch, "put", 6, lambda: EVENTS[event](house, "target"))
    with house.client("target") as client:
        restore_to_server(disk, None, client)
    with mapped(house.target) as found, mapped(house.source) as expected:
        assert found[:SIZE] == expected
        assert not any(found[SIZE:])


def test_what_a_server_took_to_its_grave_is_restored_again(
    house: House, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server dies in mid-restore with all that was not flushed: the flush names it, and it is sent again."""
    with house.client("source") as client:
        back_up(disk, client, Wish(incremental=False))
    monkeypatch.setattr("mover.client.sender.FLUSH_S", 1e9)  # nothing is flushed before: all of it is lost

    def lose() -> None:
        house.servers["target"].kill()
        house.target.write_bytes(b"\xff" * (SIZE + MIB))
        house.servers["target"].start()

    at_request(monkeypatch, "put", 9, lose)
    with house.client("target") as client:
        restore_to_server(disk, None, client)
    with mapped(house.target) as found, mapped(house.source) as expected:
        assert found[:SIZE] == expected
        assert not any(found[SIZE:])


def test_a_server_that_does_not_come_back_leaves_no_point(
    house: House, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the range, and nothing of the attempt is left."""
    server = house.servers["source"]
    at_request(monkeypatch, "read_into", 6, server.kill)
    try:
        with house.client("source", patience_s=0.5) as client, pytest.raises(ClientError, match="read of bytes"):
            back_up(disk, client, Wish(incremental=False))
    finally:
        server.start()
    assert sorted(path.name for path in disk.directory.iterdir()) == ["reading.lock", "writing.lock"]


def test_an_image_that_is_too_small_is_not_written(house: House, chain: Chain, images: Images) -> None:
    """Half a disk is no disk."""
    chain.image.resize(SIZE + 2 * MIB)
    chain.take(incremental=False)
    with house.client("target") as client, pytest.raises(ClientError, match=f"it has {SIZE + MIB} bytes"):
        restore_to_server(chain.disk, None, client)


def program(*arguments: object) -> subprocess.Popen[bytes]:
    """`mover backup ARGUMENTS` as a process of its own."""
    command = [sys.executable, "-m", "mover", "backup", *(str(each) for each in arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def end_somewhere(process: subprocess.Popen[bytes], chance: random.Random, number: signal.Signals) -> int:
    """Signal the process at a random moment of its life, if it still lives; its exit status."""
    with process:
        fd = os.pidfd_open(process.pid)
        try:
            if not select.select([fd], [], [], chance.uniform(0.1, 1.2))[0]:
                process.send_signal(number)
        finally:
            os.close(fd)
        return process.wait(60)


def test_a_program_killed_at_random_leaves_whole_points_and_the_next_one_works(house: House, room: Path) -> None:
    """Backup, restore and prune as processes, with SIGKILL at some moment of each."""
    repo, chance = room / "repo", random.Random(3)
    url = f"http://127.0.0.1:{house.mover.tcp[1]}/images/source"
    Repository(repo).make_disk(NAME)
    target = room / "target.raw"
    for _ in range(4):
        end_somewhere(program("full", url, "--repo", repo, "--name", NAME), chance, signal.SIGKILL)
        disk = Repository(repo).disk(NAME)
        assert verify(disk) == []
        with house.client("source") as client:
            back_up(disk, client, Wish(incremental=False))
        end_somewhere(program("restore", "--repo", repo, "--name", NAME, target), chance, signal.SIGKILL)
        target.unlink(missing_ok=True)
        end_somewhere(program("prune", "--repo", repo, "--keep", 1), chance, signal.SIGKILL)
        assert_holds(disk, house.source, room)
        prune(disk, Keep(1), 0.0)
        assert_holds(disk, house.source, room)
        assert len(list(disk.directory.iterdir())) == 5


def test_an_interrupted_backup_ends_with_130_and_leaves_nothing(house: House, room: Path) -> None:
    """Ctrl-C while it reads, from a server that stands still."""
    repo = room / "repo"
    disk = Repository(repo).make_disk(NAME)
    with house.client("source") as client:
        client.size()  # the server has been connected to: OPTIONS is answered while it stands still
    house.servers["source"].pause()
    try:
        process = program(
            "full", f"http://127.0.0.1:{house.mover.tcp[1]}/images/source", "--repo", repo, "--name", NAME
        )
        with process:
            while not disk.file("writing.lock").read_text().strip():
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == 130
    finally:
        house.servers["source"].resume()
    assert sorted(path.name for path in disk.directory.iterdir()) == ["reading.lock", "writing.lock"]


class LittleRoom:
    """A file system of 24 MiB; without root a directory, where files are limited while something is `filling` it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir()
        self.mounted = os.geteuid() == 0 and mount("-t", "tmpfs", "-o", "size=24m", "tmpfs", place)

    @contextmanager
    def filling(self, limit_bytes: int) -> Iterator[None]:
        """No file may become longer, if there is no other way to run out of room."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        if not self.mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    def close(self) -> None:
        if self.mounted:
            # Lazily: pytest may still hold an exception, and that a reader's files.
            subprocess.run(["umount", "--lazy", str(self.place)], check=True)


@pytest.fixture
def little(room: Path) -> Iterator[LittleRoom]:
    """Room for less than any of these disks."""
    with closing(LittleRoom(room / "little")) as little:
        yield little


def mount(*arguments: object) -> bool:
    return subprocess.run(["mount", *(str(each) for each in arguments)], check=False).returncode == 0


def test_a_full_disk_fails_a_backup_and_leaves_what_was_there(house: House, little: LittleRoom) -> None:
    """One line that says what to do; no half file takes up the rest of the room."""
    disk = Repository(little.place / "repo").make_disk(NAME)
    with (
        house.client("source") as client,
        little.filling(24 * MIB),
        pytest.raises(RepositoryError, match="make room"),
    ):
        back_up(disk, client, Wish(incremental=False))
    assert sorted(path.name for path in disk.directory.iterdir()) == ["reading.lock", "writing.lock"]


@pytest.mark.parametrize("file_format", ["raw", "qcow2"])
def test_a_full_disk_fails_a_restore_and_leaves_no_file(
    house: House, disk: Disk, little: LittleRoom, file_format: FileFormat
) -> None:
    """Neither under its name nor under another."""
    with house.client("source") as client:
        back_up(disk, client, Wish(incremental=False))
    with little.filling(24 * MIB), pytest.raises(ClientError, match=r"restoring to .*make room"):
        restore_to_file(disk, None, little.place / "target", file_format)
    assert list(little.place.iterdir()) == []


def test_a_full_disk_fails_a_prune_and_leaves_every_point(little: LittleRoom, room: Path, chain: Chain) -> None:
    """Merging needs room for a full one beside what is there."""
    here = Chain(Repository(little.place / "repo").make_disk(NAME), chain.image)
    chain.image.resize(12 * MIB)
    chain.image.write(0, os.urandom(10 * MIB))
    here.take(incremental=False)
    chain.image.write(MIB, os.urandom(5 * MIB))
    here.take()
    with little.filling(5 * MIB), pytest.raises(RepositoryError, match="make room"):
        prune(here.disk, Keep(1))
    assert here.points() == [1, 2]
    here.assert_restores(room)
    assert verify(here.disk) == []
