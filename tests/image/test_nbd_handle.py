"""The leaf that wraps libnbd, over real servers: what they say, every command, and their death in the middle."""

from __future__ import annotations

import errno
import select
import socket
import subprocess
from collections.abc import Callable

import psutil
import pytest

from tests.harness.fixtures import Images
from tests.harness.patterns import MIB, pattern
from tests.harness.servers import NbdServer
from tests.harness.waiting import PATIENCE_S
from workers import nbd_handle
from workers.nbd_handle import READS, WRITES, Extents, NbdError, NbdHandle, is_zero

pytestmark = pytest.mark.nbd


class Driven:
    """A handle and a loop for it, no more than libnbd asks for."""

    def __init__(self, server: NbdServer, export: str = "") -> None:
        self.handle = NbdHandle(export)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(server.socket))
        self.handle.connect(self.socket.dup().detach())
        self.ended: list[tuple[object, int, Extents | None]] = []

    def until(self, condition: Callable[[], bool]) -> None:
        """Carry what is to be carried until the condition is true, or the connection dead."""
        while not condition() and not self.handle.dead():
            direction = self.handle.direction()
            wanted = (select.POLLIN if direction & READS else 0) | (select.POLLOUT if direction & WRITES else 0)
            poll = select.poll()
            poll.register(self.socket, wanted)
            ready = poll.poll(PATIENCE_S * 1000)
            assert ready, "nothing came"
            if direction & READS and ready[0][1] & ~select.POLLOUT:
                self.handle.notify_read()
            else:
                self.handle.notify_write()

    def open(self) -> Driven:
        """All of the handshake."""
        self.until(self.handle.negotiating)
        self.handle.list_bitmaps()
        self.until(self.handle.listed)
        self.handle.go()
        self.until(self.handle.went)
        return self

    def collect(self, count: int) -> None:
        """Wait for so many commands' ends in all."""

        def enough() -> bool:
            while self.handle.ended:
                self.ended.append(self.handle.ended.popleft())
            return len(self.ended) >= count

        self.until(enough)
        enough()

    def close(self) -> None:
        """libnbd's duplicate of the socket goes with the handle."""
        self.socket.close()
        del self.handle


@pytest.fixture
def open_handle(endings: object) -> Callable[..., Driven]:
    """Connects to a server, handshake and all."""

    def open_it(server: NbdServer, export: str = "", handshake: bool = True) -> Driven:
        driven = Driven(server, export)
        endings.callback(driven.close)  # type: ignore[attr-defined]
        return driven.open() if handshake else driven

    return open_it


OpenHandle = Callable[..., Driven]


def test_what_the_server_says_of_its_export_is_known(images: Images, open_handle: OpenHandle) -> None:
    server = images.nbdkit(
        "facts", "memory", "3M", "blocksize-minimum=512", "blocksize-maximum=1M", filters=["blocksize-policy"]
    )
    handle = open_handle(server).handle
    assert (handle.size_bytes(), handle.read_only()) == (3 * MIB, False)
    assert handle.can_flush()
    assert handle.can_zero()
    assert handle.has_extents()
    assert handle.multi_conn()
    assert (handle.block_bytes(), handle.most_bytes(), handle.bitmaps()) == (512, MIB, [])


def test_what_the_server_does_not_say_has_a_default(images: Images, open_handle: OpenHandle) -> None:
    handle = open_handle(images.nbdkit("poor", "memory", "3M", read_only=True)).handle
    assert handle.read_only()
    assert handle.most_bytes() == nbd_handle.MOST_BYTES
    assert handle.block_bytes() == 1


def test_an_export_that_is_not_served_is_refused_and_says_so(images: Images, open_handle: OpenHandle) -> None:
    server = images.qemu_nbd(images.hole("disk", MIB), export="this")
    assert open_handle(server, "this").handle.size_bytes() == MIB
    with pytest.raises(NbdError, match="export"):
        open_handle(server, "that")


def test_a_server_without_structured_replies_has_no_extents_and_works(images: Images, open_handle: OpenHandle) -> None:
    driven = open_handle(images.nbdkit("plain", "--no-sr", "memory", "1M"))
    assert not driven.handle.has_extents()
    driven.handle.pread(memoryview(bytearray(512)), 0, "read")
    driven.collect(1)
    assert driven.ended == [("read", 0, None)]


@pytest.mark.parametrize("make", ["nbdkit", "qemu"])
def test_many_commands_at_once_all_end_once_with_the_right_bytes(
    images: Images, open_handle: OpenHandle, make: str
) -> None:
    path = images.pattern("disk", 1, 2 * MIB)
    server = images.qemu_nbd(path) if make == "qemu" else images.nbdkit("file", "file", str(path), threads=None)
    driven = open_handle(server)
    handle = driven.handle
    buffers = {offset: memoryview(bytearray(64 * 1024)) for offset in range(0, MIB, 64 * 1024)}
    for offset, buffer in buffers.items():
        handle.pread(buffer, offset, offset)
    handle.pwrite(memoryview(b"w" * 4096), MIB, "write")
    handle.zero(8192, MIB + 8192, True, "zero")
    handle.zero(8192, MIB + 16384, False, "zero, no hole")
    handle.flush("flush")
    tokens = [*buffers, "write", "zero", "zero, no hole", "flush"]
    driven.collect(len(tokens))
    assert sorted(map(str, (token for token, _, _ in driven.ended))) == sorted(map(str, tokens))
    assert {error for _, error, _ in driven.ended} == {0}
    for offset, buffer in buffers.items():
        assert buffer == pattern(1, offset, len(buffer))
    found = path.read_bytes()
    assert found[MIB : MIB + 4096] == b"w" * 4096
    assert found[MIB + 8192 : MIB + 24576] == bytes(16384)


def test_a_command_that_the_server_refuses_ends_with_its_errno_and_the_next_one_works(
    images: Images, open_handle: OpenHandle
) -> None:
    driven = open_handle(
        images.nbdkit("bad", "memory", "1M", "error-pread=ENOSPC", "error-pread-rate=100%", filters=["error"])
    )
    driven.handle.pread(memoryview(bytearray(512)), 0, "read")
    driven.collect(1)
    driven.handle.pwrite(memoryview(b"x" * 512), 0, "write")
    driven.collect(2)
    assert driven.ended == [("read", errno.ENOSPC, None), ("write", 0, None)]
    assert driven.handle.ready()


def test_extents_come_from_the_offset_on_as_lengths_and_flags(images: Images, open_handle: OpenHandle) -> None:
    path = images.hole("disk", MIB)
    with path.open("r+b") as file:
        file.seek(512 * 1024)
        file.write(b"d" * 65536)
    driven = open_handle(images.qemu_nbd(path))
    driven.handle.block_status(MIB - 65536, 65536, "status")
    driven.collect(1)
    (token, error, found) = driven.ended[0]
    assert (token, error) == ("status", 0)
    assert found == {"base:allocation": [(458752, 3), (65536, 0), (458752, 3)]}


def test_dirty_bitmaps_are_listed_by_their_names_and_asked_with_the_allocation(
    images: Images, open_handle: OpenHandle
) -> None:
    path = images.room / "disk.qcow2"
    for command in (
        ["create", "-q", "-f", "qcow2", str(path), "1M"],
        ["bitmap", "--add", str(path), "monday"],
    ):
        subprocess.run(["qemu-img", *command], check=True)
    subprocess.run(["qemu-io", "-c", "write 65536 65536", str(path)], check=True, stdout=subprocess.DEVNULL)
    driven = open_handle(images.qemu_nbd(path, image_format="qcow2", bitmap="monday", read_only=True))
    assert driven.handle.bitmaps() == ["monday"]
    driven.handle.block_status(MIB, 0, "status")
    driven.collect(1)
    found = driven.ended[0][2]
    assert found is not None
    assert found["monday"] == [(65536, 0), (65536, 1), (MIB - 131072, 0)]
    assert sum(length for length, _ in found["base:allocation"]) == MIB


def test_a_server_that_dies_ends_every_command_in_flight_once_with_an_error(
    images: Images, open_handle: OpenHandle
) -> None:
    server = images.qemu_nbd(images.pattern("disk", 1, MIB))
    driven = open_handle(server)
    server.pause()
    buffers = [memoryview(bytearray(b"\xee" * 65536)) for _ in range(8)]
    for number, buffer in enumerate(buffers):
        driven.handle.pread(buffer, 0, number)
    driven.handle.block_status(MIB, 0, "status")
    server.kill()
    with pytest.raises(NbdError):
        driven.collect(9)
    driven.collect(9)
    assert driven.handle.dead()
    assert sorted(str(token) for token, _, _ in driven.ended) == [*map(str, range(8)), "status"]
    assert all(error for _, error, _ in driven.ended)
    assert all(buffer == b"\xee" * 65536 for buffer in buffers)
    assert driven.handle.direction() == 0


def test_a_dead_connection_refuses_commands(images: Images, open_handle: OpenHandle) -> None:
    server = images.qemu_nbd(images.hole("disk", MIB))
    driven = open_handle(server)
    server.kill()
    driven.until(lambda: False)
    with pytest.raises(NbdError):
        driven.handle.pread(memoryview(bytearray(512)), 0, "late")
    assert not driven.handle.ended


def test_a_goodbye_ends_the_connection_on_both_sides(images: Images, open_handle: OpenHandle) -> None:
    driven = open_handle(images.nbdkit("memory", "memory", "1M"))
    driven.handle.disconnect()
    driven.until(lambda: False)
    assert driven.handle.dead()


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 4096, 65537])
def test_zeros_are_zeros_and_one_bit_anywhere_is_not(length: int) -> None:
    assert is_zero(memoryview(bytes(length)))
    for at in {0, length // 2, length - 1}:
        view = memoryview(bytearray(length))
        view[at] = 1
        assert not is_zero(view)
        assert is_zero(view[:at]) or not at


@pytest.mark.parametrize("asked", ["bitmaps", "export"])
def test_a_handshake_that_is_given_up_leaves_no_socket(images: Images, asked: str) -> None:
    """libnbd holds what it is to call until there is an answer: that must not be what holds the connection."""
    server = images.qemu_nbd(images.pattern("silent", 1, MIB))
    driven = Driven(server)
    driven.until(driven.handle.negotiating)
    before = sockets()
    server.pause()
    if asked == "bitmaps":
        driven.handle.list_bitmaps()
    else:
        driven.handle.go()
    del driven.handle
    server.resume()
    assert sockets() == before - 1
    driven.socket.close()


def sockets() -> int:
    """How many this process has open."""
    return len(psutil.Process().net_connections("all"))
