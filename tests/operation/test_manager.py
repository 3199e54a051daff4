"""systemd's side of the service: told when it is ready, alive, reloading and stopping; sockets passed on."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness.fixtures import Images, StartMover
from tests.harness.http import ask
from tests.harness.mover import PROGRAM, Mover
from tests.harness.patterns import MIB, pattern
from tests.harness.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.nbd

# As systemd does it: the descriptors from 3 on, announced to the very process that takes them.
ACTIVATED = 'exec 3<&"$1" 4<&"$2" 5<&"$3"; shift 3; export LISTEN_PID=$$; exec "$@"'


class Manager:
    """Hears what the service says."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.settimeout(PATIENCE_S)

    def hear(self, wanted: str) -> list[str]:
        """The next message that has a line like this."""
        while True:
            lines = self._socket.recv(65536).decode().split("\n")
            if any(line.startswith(wanted) for line in lines):
                return lines

    def hears_nothing_like(self, unwanted: str, seconds: float) -> bool:
        """Whether no such message comes for so long."""
        self._socket.settimeout(seconds)
        try:
            self.hear(unwanted)
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(PATIENCE_S)
        return False

    def forget(self) -> None:
        """What was said before does not count."""
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(65536)
        self._socket.settimeout(PATIENCE_S)

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()


@pytest.fixture
def manager(room: Path) -> Iterator[Manager]:
    """A service manager."""
    made = Manager(room / "notify")
    yield made
    made.close()


def managed(mover: Mover, manager: Manager, **environ: str) -> Mover:
    """The same, started by a manager."""
    mover.environ = {"NOTIFY_SOCKET": manager.address, **environ}
    return mover.start()


def test_ready_reloading_and_stopping_are_told(manager: Manager, start_mover: StartMover) -> None:
    """Each in its time, with a line for people; the children do not know of the manager."""
    mover = managed(start_mover({}, wait=False), manager)
    assert any(line.startswith("STATUS=serving 0 tickets on http://") for line in manager.hear("READY=1"))
    for child in mover.children():
        assert b"NOTIFY_SOCKET" not in Path(f"/proc/{child.pid}/environ").read_bytes()
    mover.signal(signal.SIGHUP)
    assert any(line.startswith("MONOTONIC_USEC=") for line in manager.hear("RELOADING=1"))
    manager.hear("READY=1")
    assert mover.stop() == 0
    manager.hear("STOPPING=1")


def test_the_watchdog_is_fed_while_all_parts_answer(manager: Manager, start_mover: StartMover) -> None:
    """Not while a front end stands still; again when it goes on."""
    mover = managed(start_mover({}, wait=False), manager, WATCHDOG_USEC="300000")
    manager.hear("WATCHDOG=1")
    front_end = mover.front_end_pids()[0]
    os.kill(front_end, signal.SIGSTOP)
    try:
        manager.hear("STATUS=front end 1 does not answer")
        manager.forget()
        assert manager.hears_nothing_like("WATCHDOG=1", 1.0)
    finally:
        os.kill(front_end, signal.SIGCONT)
    manager.hear("WATCHDOG=1")
    mover.stop_clean()


def test_nobody_is_told_without_a_manager(start_mover: StartMover) -> None:
    """A manager that is not there is no error."""
    mover = start_mover({}, wait=False)
    mover.environ = {"NOTIFY_SOCKET": "/nowhere/notify", "WATCHDOG_USEC": "300000"}
    mover.start()
    assert mover.ask("GET", "/readyz").status == 200
    mover.stop_clean()


def listening(family: socket.AddressFamily, address: str | tuple[str, int], endings: ExitStack) -> socket.socket:
    """A socket as a manager binds it."""
    sock = endings.enter_context(contextlib.closing(socket.socket(family, socket.SOCK_STREAM)))
    sock.bind(address)
    sock.listen(16)
    return sock


@pytest.mark.parametrize("names", ["http:unix:control", "mover.socket:mover.socket:control", "::control"])
def test_sockets_are_taken_from_the_manager(
    names: str, room: Path, images: Images, endings: ExitStack, start_mover: StartMover
) -> None:
    """By their names, or by what they are; their files stay, and what had queued before the start is served."""
    server = images.qemu_nbd(images.pattern("disk", 1, MIB))
    own, control = room / "own.http", room / "own.control"
    tcp = listening(socket.AF_INET, ("127.0.0.1", 0), endings)
    sockets = [tcp, *(listening(socket.AF_UNIX, str(path), endings) for path in (own, control))]
    # From 10 on: 3 to 5 are where they go.
    fds = [fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD, 10) for sock in sockets]
    for fd in fds:
        endings.callback(os.close, fd)
    program = ["/bin/bash", "-c", ACTIVATED, "bash", *map(str, fds), *PROGRAM]
    mover = start_mover({"disk": server}, wait=False, program=program)
    mover.pass_fds, mover.environ = fds, {"LISTEN_FDS": "3", "LISTEN_FDNAMES": names}
    mover.unix = own  # the flag names it, too
    mover.start()
    assert mover.tcp == tcp.getsockname()
    for address in (mover.tcp, own):
        assert ask(address, "GET", "/images/disk").body == pattern(1, 0, MIB)
    assert ask(own, "OPTIONS", "/images/disk").json()["unix_socket"] == str(own)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as agent:
        agent.connect(str(control))
        agent.sendall(b'{"action": "status"}\n')
        assert b'"ok"' in agent.recv(4096)
    assert mover.stop() == 0
    mover.wait_for_end()
    assert own.exists()
    assert control.exists()


def test_sockets_that_cannot_be_meant_are_an_error(room: Path, endings: ExitStack, start_mover: StartMover) -> None:
    """Two of one name: status 3, and a line that says so."""
    sockets = [listening(socket.AF_UNIX, str(room / name), endings) for name in ("a", "b", "c")]
    fds = [fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD, 10) for sock in sockets]
    for fd in fds:
        endings.callback(os.close, fd)
    mover = start_mover({}, wait=False, program=["/bin/bash", "-c", ACTIVATED, "bash", *map(str, fds), *PROGRAM])
    mover.pass_fds, mover.environ = fds, {"LISTEN_FDS": "3", "LISTEN_FDNAMES": "unix:unix:control"}
    mover.launch()
    assert mover.process.wait(PATIENCE_S) == 3
    wait_until("it says why", lambda: "two of them are unix" in mover.log())
