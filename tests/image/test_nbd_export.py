"""A connection's life with real servers, and with listeners that are none."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec
import pytest

from config.export import Export
from config.settings import WorkerSettings
from tests.harness.fixtures import Images
from tests.harness.patterns import MIB, pattern
from tests.harness.servers import NbdServer
from tests.harness.waiting import PATIENCE_S
from tests.image.process import ANYWHERE
from workers.image.connection import STATES, Connection, Event, State
from workers.image.loop import Loop
from workers.image.nbd_export import NbdConnection
from workers.image.plan import Command, Limits, Operation

pytestmark = pytest.mark.nbd

SETTINGS = WorkerSettings(fence_s=PATIENCE_S)


class Owner:
    """A worker that writes down what it is told, and the loop that carries it."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.limits: list[Limits] = []
        self.answers: list[tuple[Command, int]] = []
        self.ends: list[tuple[str, list[Command], bool]] = []
        self.introduced: list[int] = []
        self.told: list[str] = []

    def connected(self, connection: Connection, limits: Limits) -> None:
        self.told.append("connected")
        self.limits.append(limits)

    def ended(self, command: Command, error: int) -> None:
        self.answers.append((command, error))

    def disconnected(self, connection: Connection, why: str, commands: list[Command], fenced: bool) -> None:
        self.told.append("disconnected")
        self.ends.append((why, commands, fenced))

    def introduce(self, connection: Connection, fd: int) -> None:
        self.told.append("introduced")
        self.introduced.append(os.dup(fd))

    def until(self, condition: Callable[[], object]) -> None:
        """Run the loop until it is true; AssertionError after a long time."""
        late: list[bool] = []
        timer = self.loop.later(PATIENCE_S, lambda: late.append(True))
        while not condition():
            assert not late, (self.told, self.ends)
            self.loop.run_once()
        timer.cancel()

    def close(self) -> None:
        for fd in self.introduced:
            os.close(fd)
        self.loop._epoll.close()


@pytest.fixture
def owner() -> Iterator[Owner]:
    made = Owner()
    yield made
    made.close()


@pytest.fixture
def listener(room: Path) -> Iterator[tuple[socket.socket, Export]]:
    """Somebody who listens on a Unix socket, in this process."""
    path = room / "no.nbd"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        yield sock, Export("unix", socket=str(path))


def export_of(server: NbdServer, name: str = "") -> Export:
    if server.port:
        return Export("tcp", host="127.0.0.1", port=server.port, name=name)
    return Export("unix", socket=str(server.socket), name=name)


def connection_to(
    owner: Owner, export: Export, *, connect_s: float = PATIENCE_S, settings: WorkerSettings = SETTINGS
) -> NbdConnection:
    connection = NbdConnection(1, export, ANYWHERE, settings, owner.loop, owner, connect_s)
    connection.open()
    return connection


def ready(owner: Owner, export: Export) -> NbdConnection:
    ends = len(owner.ends)
    connection = connection_to(owner, export)
    owner.until(lambda: connection.state is State.READY or len(owner.ends) > ends)
    assert connection.state is State.READY, owner.ends
    return connection


def read(offset: int, length: int) -> Command:
    return Command(Operation.READ, offset, length, memoryview(bytearray(length)))


def data(command: Command) -> bytes:
    assert command.buffer is not None
    return bytes(command.buffer)


def send(connection: NbdConnection, *commands: Command) -> None:
    for command in commands:
        connection.send(command)
    connection.settle()


# -- life ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tcp", [False, True])
def test_a_connection_is_introduced_before_anything_may_be_sent_on_it(images: Images, owner: Owner, tcp: bool) -> None:
    server = images.qemu_nbd(images.pattern("disk", 1, MIB), tcp=tcp)
    connection = ready(owner, export_of(server))
    assert owner.told == ["introduced", "connected"]
    assert owner.limits[0].facts.size_bytes == MIB
    commands = [read(offset, 4096) for offset in range(0, MIB, 65536)]
    send(connection, *commands)
    owner.until(lambda: len(owner.answers) == len(commands))
    assert {error for _, error in owner.answers} == {0}
    assert all(data(command) == pattern(1, command.offset, 4096) for command in commands)
    assert (connection.in_flight, connection.waited_s) == (0, 0)
    connection.leave()
    owner.until(lambda: owner.ends)
    assert owner.ends == [("leaving", [], True)]
    assert server.running


def test_every_kind_of_command_goes_to_the_server(images: Images, owner: Owner) -> None:
    path = images.pattern("disk", 1, MIB)
    connection = ready(owner, export_of(images.qemu_nbd(path)))
    status = Command(Operation.STATUS, 0, MIB)
    commands = [
        Command(Operation.WRITE, 0, 4, memoryview(b"abcd")),
        Command(Operation.ZERO, 8192, 4096, may_hole=True),
        Command(Operation.FLUSH),
        status,
    ]
    send(connection, *commands)
    owner.until(lambda: len(owner.answers) == len(commands))
    assert {error for _, error in owner.answers} == {0}
    assert sum(length for length, _ in status.found["base:allocation"]) == MIB
    assert path.read_bytes()[:4] == b"abcd"
    assert path.read_bytes()[8192:12288] == bytes(4096)
    connection.leave()
    owner.until(lambda: owner.ends)


def test_an_answer_that_is_an_error_is_an_answer(images: Images, owner: Owner) -> None:
    server = images.nbdkit("bad", "memory", "1M", "error-pread=EIO", "error-pread-rate=100%", filters=["error"])
    connection = ready(owner, export_of(server))
    command = read(0, 4096)
    send(connection, command)
    owner.until(lambda: owner.answers)
    assert owner.answers == [(command, errno.EIO)]
    assert connection.state is State.READY
    connection.leave()
    owner.until(lambda: owner.ends)


def test_the_states_are_those_of_the_drawing() -> None:
    """An end comes only to what was opened, and only once."""
    assert {state for state, event in STATES if event is Event.BROKEN} == set(State) - {State.CLOSED, State.FENCING}
    assert [after for (_, event), after in STATES.items() if event is Event.ENDED] == [State.CLOSED]
    assert {after for (_, event), after in STATES.items() if event is Event.BROKEN} == {State.FENCING}


# -- the server's end --------------------------------------------------------------------------------------------


def test_a_server_killed_with_commands_in_flight_gives_them_all_back_once_and_fenced(
    images: Images, owner: Owner
) -> None:
    server = images.qemu_nbd(images.pattern("disk", 1, MIB))
    connection = ready(owner, export_of(server))
    server.pause()
    commands = [read(offset, 4096) for offset in range(0, MIB, 65536)]
    commands.append(Command(Operation.FLUSH))
    send(connection, *commands)
    server.kill()
    owner.until(lambda: owner.ends)
    (_, given_back, fenced) = owner.ends[0]
    assert fenced
    assert given_back == commands
    assert owner.answers == []
    assert (connection.state, connection.in_flight) == (State.CLOSED, 0)


def test_a_command_sent_to_a_server_that_has_died_is_given_back_and_not_answered(images: Images, owner: Owner) -> None:
    server = images.qemu_nbd(images.hole("disk", MIB))
    connection = ready(owner, export_of(server))
    server.kill()
    command = read(0, 4096)
    send(connection, command)
    owner.until(lambda: owner.ends)
    assert (owner.ends[0][1], owner.answers) == ([command], [])


def test_after_a_restart_another_connection_meets_another_server(images: Images, owner: Owner) -> None:
    server = images.qemu_nbd(images.pattern("disk", 1, MIB))
    first = ready(owner, export_of(server))
    server.kill()
    owner.until(lambda: owner.ends)
    server.start()
    second = ready(owner, export_of(server))
    assert first.server != second.server
    assert second.server[0] == server.pid
    third = ready(owner, export_of(server))
    assert third.server == second.server
    for connection in (second, third):
        connection.break_off("the test is over")
    owner.until(lambda: len(owner.ends) == 3)


def test_who_serves_over_tcp_cannot_be_told(images: Images, owner: Owner) -> None:
    connection = ready(owner, export_of(images.qemu_nbd(images.hole("disk", MIB), tcp=True)))
    assert connection.server == (0, 0)
    connection.break_off("the test is over")
    owner.until(lambda: owner.ends)


def test_after_a_fence_nothing_of_the_old_connection_lands_any_more(images: Images, owner: Owner) -> None:
    """With a server that finishes before it hangs up, as nbdkit does.

    qemu-nbd 7.2 hangs up at once and goes on writing: in 17 of 40 tries one write of 64 KiB landed after the end.
    """
    path = images.hole("disk", MIB)
    server = images.nbdkit("file", "file", str(path))
    connection = ready(owner, export_of(server))
    commands = [Command(Operation.WRITE, at, 65536, memoryview(b"w" * 65536)) for at in range(0, MIB, 65536)]
    send(connection, *commands)
    connection.break_off("lost")
    assert (connection.state, owner.ends) == (State.FENCING, [])
    owner.until(lambda: owner.ends)
    landed = path.read_bytes()
    assert owner.ends[0][1:] == ([command for command in commands if (command, 0) not in owner.answers], False)
    server.stop()
    assert path.read_bytes() == landed


def test_a_fence_that_the_server_does_not_answer_ends_in_doubt(images: Images, owner: Owner) -> None:
    server = images.qemu_nbd(images.hole("disk", MIB))
    settings = msgspec.structs.replace(SETTINGS, fence_s=0.02)
    connection = connection_to(owner, export_of(server), settings=settings)
    owner.until(lambda: connection.state is State.READY)
    server.pause()
    command = read(0, 4096)
    send(connection, command)
    connection.break_off("no answer")
    connection.break_off("again")
    owner.until(lambda: owner.ends)
    assert owner.ends == [("no answer", [command], False)]


# -- no server ---------------------------------------------------------------------------------------------------


def test_an_export_that_the_server_does_not_have_ends_the_connection(images: Images, owner: Owner) -> None:
    server = images.qemu_nbd(images.hole("disk", MIB), export="this")
    connection = connection_to(owner, export_of(server, "that"))
    owner.until(lambda: owner.ends)
    assert "does not serve this export" in owner.ends[0][0]
    assert connection.state is State.CLOSED
    assert owner.told == ["disconnected"]


@pytest.mark.parametrize(
    "export",
    [
        Export("unix", socket="/nonexistent/no.nbd"),
        Export("unix", socket="/tmp/" + "x" * 200),
        Export("tcp", host="127.0.0.1", port=1),
    ],
    ids=["no socket", "a path too long", "a closed port"],
)
def test_where_nobody_listens_the_end_comes_at_once(owner: Owner, export: Export) -> None:
    connection_to(owner, export)
    owner.until(lambda: owner.ends)
    assert "cannot connect" in owner.ends[0][0]
    assert owner.told == ["disconnected"]


@pytest.mark.parametrize(
    "greeting",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10,
        bytes(4096),
        b"NBDMAGIC" + b"x" * 200,
        b"NBDMAGICIHAVEOPT" + b"\0\3" + b"\xff" * 99,
    ],
    ids=["http", "zeros", "wrong version", "wrong option replies"],
)
def test_a_server_that_speaks_something_else_ends_the_connection(
    owner: Owner, listener: tuple[socket.socket, Export], greeting: bytes
) -> None:
    sock, export = listener
    connection_to(owner, export)
    client, _ = sock.accept()
    with client:
        client.sendall(greeting)
        owner.until(lambda: owner.ends)
    assert owner.told == ["disconnected"]


@pytest.mark.parametrize("greeting", [b"", b"NBDMAGIC", b"NBDMAGICIHAVEOPT\0\3"])
def test_a_server_that_hangs_up_in_the_handshake_ends_the_connection(
    owner: Owner, listener: tuple[socket.socket, Export], greeting: bytes
) -> None:
    sock, export = listener
    connection_to(owner, export)
    client, _ = sock.accept()
    client.sendall(greeting)
    client.close()
    owner.until(lambda: owner.ends)
    assert owner.told == ["disconnected"]


# Replies to options: magic, option, what it is, length.
REPLY = struct.Struct(">QIII")
REPLY_MAGIC, ACK, UNSUPPORTED = 0x3E889045565A9, 1, 0x80000001
STRUCTURED_REPLY, LIST_META_CONTEXT = 8, 9


@pytest.mark.parametrize("last", [STRUCTURED_REPLY, LIST_META_CONTEXT], ids=["bitmaps", "export"])
def test_a_server_that_hangs_up_before_it_is_asked_for_more_ends_the_connection(
    owner: Owner, listener: tuple[socket.socket, Export], last: int
) -> None:
    """What it is asked for cannot be sent, so asking for it and the end of that are one."""
    sock, export = listener
    connection_to(owner, export)
    client, _ = sock.accept()
    client.setblocking(False)
    client.sendall(b"NBDMAGICIHAVEOPT\0\3")

    def take(count: int) -> bytes:
        got = bytearray()

        def enough() -> bool:
            with suppress(BlockingIOError):
                got.extend(client.recv(count - len(got)))
            return len(got) == count

        owner.until(enough)
        return bytes(got)

    take(4)
    option = 0
    while option != last:
        option, length = struct.unpack(">8xII", take(16))
        if length:
            take(length)
        says = ACK if option in (STRUCTURED_REPLY, LIST_META_CONTEXT) else UNSUPPORTED
        client.sendall(REPLY.pack(REPLY_MAGIC, option, says, 0))
    client.close()
    owner.until(lambda: owner.ends)
    assert owner.ends == [("the server closed the connection", [], True)]


@pytest.mark.parametrize("greeting", [b"", b"NBDMAGICIHAVEOPT\0\3"])
def test_a_server_that_says_nothing_is_given_up_after_the_deadline(
    owner: Owner, listener: tuple[socket.socket, Export], greeting: bytes
) -> None:
    sock, export = listener
    connection_to(owner, export, connect_s=0.02)
    client, _ = sock.accept()
    with client:
        client.sendall(greeting)
        owner.until(lambda: owner.ends)
    assert owner.ends == [("no answer in time", [], True)]


def test_a_second_connection_to_a_server_for_one_client_is_given_up_and_the_first_goes_on(
    images: Images, endings: ExitStack, owner: Owner
) -> None:
    """`qemu-nbd -e 1`, its default, lets the second one hang."""
    path = images.pattern("disk", 1, MIB)
    server = images.qemu_nbd(path, options=["--shared=1"])
    first = ready(owner, export_of(server))
    connection_to(owner, export_of(server), connect_s=0.05)
    owner.until(lambda: owner.ends)
    assert owner.ends[0][0] == "no answer in time"
    command = read(4096, 4096)
    send(first, command)
    owner.until(lambda: owner.answers)
    assert data(command) == pattern(1, 4096, 4096)
    first.leave()
    owner.until(lambda: len(owner.ends) == 2)
