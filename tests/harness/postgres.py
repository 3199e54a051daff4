"""A PostgreSQL server of the distribution's, for tests: one a session, in a directory of its own, on a Unix socket."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg

from tests.harness.fixtures import RAM
from tests.harness.waiting import PATIENCE_S, wait_until

# Debian's user, made with the package; the server refuses to run as root.
UNPRIVILEGED = "postgres"
# Tests lose nothing that matters when the machine does.
OPTIONS = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "max_connections=200",
    # In its own directory: what a server that is killed has in /dev/shm stays there.
    "dynamic_shared_memory_type=mmap",
)


def programs() -> Path | None:
    """Where initdb and postgres are; None if they are not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


class Postgres:
    """A running server; `database()` makes a new, empty database."""

    def __init__(self, directory: Path, command: Sequence[str | Path], user: str | None, address: str = "") -> None:
        self._directory = directory
        self._command = command
        self._user = user
        self._address = address
        self._numbers = count(1)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, for the first time or again."""
        self._process = subprocess.Popen(
            self._command,
            cwd=self._directory,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=self._user,
        )  # fmt: skip
        wait_until("postgres takes connections", self.answers)

    def stop(self) -> None:
        """End it, and with it all that its clients were doing."""
        assert self._process is not None
        # A smart shutdown (SIGTERM) would wait for clients that a failed test left.
        self._process.send_signal(signal.SIGINT)
        self._process.send_signal(signal.SIGCONT)  # a failed test may have left it frozen
        self._process.wait(PATIENCE_S)

    def freeze(self) -> None:
        """All of its processes stop where they are: connections stand, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """They go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        server = psutil.Process(self._process.pid)
        for process in (server, *server.children()):
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                pass  # a connection that has just ended

    def database(self) -> str:
        """The URL of a new database, as `library.database` wants it."""
        name = f"library{next(self._numbers)}"
        with self._connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        if self._address:
            return f"postgresql+psycopg://mover@{self._address}/{name}"
        return f"postgresql+psycopg://mover@/{name}?host={quote(str(self._directory), safe='')}"

    def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            self._connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def _connect(self, name: str) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(host=str(self._directory), dbname=name, user="mover", autocommit=True)


@contextmanager
def running(address: str = "") -> Iterator[Postgres]:
    """A server for the time of the block; on an address, too, if one is given, for whoever comes there."""
    found = programs()
    assert found is not None, "PostgreSQL is missing: `make setup` installs it"
    # Not in pytest's own directory, which only its owner may enter.
    parent = RAM if RAM.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="mover-postgres-", dir=parent) as name:
        room = Path(name)
        user = _hand_over(room)
        data = room / "data"
        initdb: list[str | Path] = [
            found / "initdb",
            "--auth=trust",
            "--username=mover",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]
        _run([*initdb, "-D", data], room, user)
        if address:
            with (data / "pg_hba.conf").open("a") as file:
                file.write("host all all all trust\n")
        options: list[str | Path] = [part for one in OPTIONS for part in ("-c", one)]
        command = [found / "postgres", "-D", data, "-k", room, *options, "-c", f"listen_addresses={address}"]
        server = Postgres(room, command, user, address)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _hand_over(room: Path) -> str | None:
    """Give the directory to an unprivileged user, if we are root; who the server is to run as."""
    if os.geteuid() != 0:
        return None
    owner = pwd.getpwnam(UNPRIVILEGED)
    shutil.chown(room, owner.pw_uid, owner.pw_gid)
    room.chmod(0o755)
    return UNPRIVILEGED


def _run(command: Sequence[str | Path], room: Path, user: str | None) -> None:
    done = subprocess.run(command, cwd=room, user=user, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
