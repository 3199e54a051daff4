"""A directory of transfers: read on demand, again when changed, and nothing outside of it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from config.export import Export
from mover.control.port import Holder
from mover.control.transfer_dir import FILE_BYTES, TransferDir
from mover.serve.messages import Ticket
from tests.control.port import OpenGate, Port
from tests.harness.fixtures import Images
from tests.harness.mover import Mover
from tests.harness.patterns import pattern
from tests.harness.waiting import wait_until

LONG_AGO = (1_000_000_000, 1_000_000_000)
MIB = 1 << 20


class Numbers:
    """A NumberPort that gives each ticket another number, and remembers which are gone."""

    def __init__(self) -> None:
        self.gone_transfers: list[int] = []
        self._numbers = count(100)

    def number(self, holder: Holder, ticket_id: str, export: Export) -> int:
        return next(self._numbers)

    def keep_numbers(self, holder: Holder, wanted: Callable[[str], bool]) -> None:
        """There are none yet."""

    def gone(self, ticket: Ticket) -> None:
        self.gone_transfers.append(ticket.transfer)


class Directory:
    """A TransferDir over a temporary directory, and what it has in force."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.port = Port()
        self.numbers = Numbers()
        self.gate = OpenGate()
        self.source = TransferDir(str(path), self.port, self.numbers, self.gate)

    def write(self, name: str, socket: str, *, old: bool = True) -> None:
        """A transfer's file; an `old` one was written long ago."""
        (self.path / name).write_text(json.dumps({"socket": socket}))
        if old:
            os.utime(self.path / name, LONG_AGO)

    def socket(self, name: str) -> str | None:
        """Where its ticket leads, after a client has asked for it."""
        asyncio.run(self.source.look(name))
        ticket = self.port.ticket(name)
        return ticket.export.socket if ticket else None

    def version(self, name: str) -> int | None:
        ticket = self.port.ticket(name)
        return ticket.version if ticket else None


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    """An empty directory, and a file beside it that is none of its business."""
    (tmp_path / "transfers").mkdir()
    (tmp_path / "outside").write_text(json.dumps({"socket": "/outside"}))
    return Directory(tmp_path / "transfers")


def test_a_file_is_read_when_its_id_is_asked_for(directory: Directory) -> None:
    """Not before, and not those of others; its ticket speaks CloudStack's dialect and may punch holes."""
    directory.write("one", "/a")
    directory.write("two", "/b")
    assert len(directory.port.book) == 0
    assert directory.socket("one") == "/a"
    assert len(directory.port.book) == 1
    ticket = directory.port.ticket("one")
    assert ticket is not None
    assert (ticket.dialect, ticket.sparse, ticket.write) == ("cloudstack", True, True)


def test_a_file_that_comes_later_is_found(directory: Directory) -> None:
    """That there was none is not remembered."""
    assert directory.socket("one") is None
    directory.write("one", "/a")
    assert directory.socket("one") == "/a"


def test_a_directory_that_comes_later_is_found(tmp_path: Path) -> None:
    """The agent may make it with its first transfer."""
    directory = Directory(tmp_path / "later")
    assert directory.socket("one") is None
    directory.path.mkdir()
    directory.write("one", "/a")
    assert directory.socket("one") == "/a"


@pytest.mark.parametrize("old", [True, False])
def test_a_file_that_changed_is_read_again(directory: Directory, old: bool) -> None:
    """Also one that changes twice within its file system's smallest time."""
    directory.write("one", "/a", old=old)
    directory.socket("one")
    stat = os.stat(directory.path / "one")
    directory.write("one", "/b", old=False)
    os.utime(directory.path / "one", ns=(stat.st_atime_ns, stat.st_mtime_ns + (1 if old else 0)))
    asyncio.run(directory.source.poll())
    assert directory.socket("one") == "/b"


def test_a_file_that_says_the_same_again_is_the_same_ticket(directory: Directory) -> None:
    """Touching it makes no new version, and no difference to anybody."""
    directory.write("one", "/a", old=False)
    directory.socket("one")
    version = directory.version("one")
    directory.write("one", "/a")
    asyncio.run(directory.source.poll())
    asyncio.run(directory.source.poll())
    assert directory.version("one") == version


@pytest.mark.parametrize("content", [None, "", '{"socket": "/a"', '{"socket": "a"}'])
def test_a_ticket_goes_with_its_file(directory: Directory, content: str | None) -> None:
    """Removed, or changed into what is no transfer: the id is unknown, until there is a good file again."""
    directory.write("one", "/a")
    directory.socket("one")
    if content is None:
        (directory.path / "one").unlink()
    else:
        (directory.path / "one").write_text(content)
    asyncio.run(directory.source.poll())
    assert directory.version("one") is None
    directory.write("one", "/b")
    assert directory.socket("one") == "/b"


@pytest.mark.parametrize("name", ["../outside", "..", ".", "", "a/../../outside", "a\0b", "x" * 256, "\ud800"])
def test_an_id_cannot_leave_the_directory(directory: Directory, name: str) -> None:
    """Front ends check ids, and this source checks them again."""
    (directory.path / "a").mkdir()
    assert directory.socket(name) is None


def test_links_are_not_followed(directory: Directory) -> None:
    """Neither out of the directory nor within it; a file that turns into a link loses its ticket."""
    directory.write("real", "/a")
    (directory.path / "out").symlink_to("../outside")
    (directory.path / "in").symlink_to("real")
    assert (directory.socket("out"), directory.socket("in"), directory.socket("real")) == (None, None, "/a")
    (directory.path / "real").unlink()
    (directory.path / "real").symlink_to("../outside")
    asyncio.run(directory.source.poll())
    assert directory.socket("real") is None


def test_what_is_no_regular_file_is_not_read(directory: Directory) -> None:
    """A directory, or a FIFO, which would hold the reader for ever."""
    (directory.path / "folder").mkdir()
    os.mkfifo(directory.path / "fifo")
    assert (directory.socket("folder"), directory.socket("fifo")) == (None, None)


def test_a_file_has_a_largest_size(directory: Directory) -> None:
    """64 KiB, and one more is refused."""
    path = directory.path / "one"
    path.write_text(json.dumps({"socket": "/a"}).ljust(FILE_BYTES + 1))
    assert directory.socket("one") is None
    path.write_text(json.dumps({"socket": "/a"}).ljust(FILE_BYTES))
    assert directory.socket("one") == "/a"


def test_another_source_s_ticket_is_left_alone(directory: Directory) -> None:
    """Neither replaced by a file of its id, nor removed with it."""
    directory.write("one", "/a")
    directory.socket("one")
    directory.port.install(Ticket("one", 0, Export(transport="unix", socket="/other")))
    (directory.path / "one").unlink()
    asyncio.run(directory.source.poll())
    assert directory.socket("one") == "/other"
    directory.write("one", "/a")
    assert directory.socket("one") == "/other"


@pytest.mark.nbd
def test_clients_find_transfers_by_their_files(mover: Mover, transfers: Path, images: Images) -> None:
    """Over TCP and Unix sockets, by host and by path; a change is seen by every front end, and so is an end."""
    disk = images.qemu_nbd(images.pattern("disk.raw", 1, MIB))
    remote = images.nbdkit("remote", "file", f"file={images.pattern('remote.raw', 2, MIB)}", tcp=True)

    def blocks() -> set[bytes]:
        answers = [mover.ask("GET", "/images/one", Range="bytes=0-4095") for _ in range(6)]
        return {answer.body if answer.status == 206 else str(answer.status).encode() for answer in answers}

    assert blocks() == {b"404"}
    (transfers / "one").write_text(json.dumps({"backend": "nbd", "socket": str(disk.socket)}))
    assert blocks() == {pattern(1, 0, 4096)}
    (transfers / "new").write_text(
        json.dumps({"host": "127.0.0.1", "port": remote.port, "export": ""} | {"export": None})
    )
    (transfers / "new").rename(transfers / "one")
    wait_until("the change is in force", lambda: blocks() == {pattern(2, 0, 4096)})
    (transfers / "one").unlink()
    wait_until("the transfer is gone", lambda: blocks() == {b"404"})
    mover.stop_clean()
