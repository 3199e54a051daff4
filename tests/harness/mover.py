"""`mover serve` as a program, for tests: started, asked, killed in its parts, counted."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.harness.http import Address, Answer, Body, Client, Secure, ask
from tests.harness.servers import NbdServer
from tests.harness.waiting import PATIENCE_S, wait_until

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-m", "mover")
READY = re.compile(r"mover: ready on https?://(?:127\.0\.0\.1|0\.0\.0\.0):(\d+)")

# An environment variable that every process of one Mover has, orphans too.
MARK = "TEST_ROOM"
# A failed test shows the end of the log: with all of it, what failed is lost where only the end of a report is kept.
SHOWN_CHARS = 4000
# A pool holds the catalogue open as often as it was ever asked at once: a number that is bounded, and differs.
CATALOGUE = re.compile(r"/library\.sqlite(-wal|-shm)?$")
# A census is settled when it is the same so often: connections come up, and are seen closed, one at a time.
STEADY = 8

# Tests have their files and servers anywhere; those that try the allow-lists say which they want.
ANYTHING = {"files": ["/"], "nbd_sockets": ["/"], "nbd_hosts": ["*"], "tls_files": ["/"]}

Value = bool | int | float | str | list[str] | list[int]
# {"worker": {"reconnect_s": 2.0}}: the tables of the TOML file; a list of them is one of [[NAME]].
Tables = Mapping[str, Mapping[str, Value] | Sequence[Mapping[str, Value]]]


@dataclass(frozen=True)
class Census:
    """What Mover holds: processes by role, descriptors by role and kind, slots in use, commands in flight."""

    processes: Counter[str]
    descriptors: Counter[str]
    slots_used: int
    in_flight: int
    connections: int

    @property
    def settled(self) -> bool:
        """Nothing is under way: no job, and the spare worker is there again."""
        return not self.slots_used and not self.in_flight and self.processes["spare"] == 1

    def differences(self, later: Census) -> list[str]:
        """What is different later, a line each."""
        old, new = self._lines(), later._lines()
        return [f"{kind}: {old[kind]}, later {new[kind]}" for kind in sorted({*old, *new}) if old[kind] != new[kind]]

    def _lines(self) -> Counter[str]:
        jobs = Counter(slots_used=self.slots_used, in_flight=self.in_flight, connections=self.connections)
        return self.processes + self.descriptors + jobs


class Mover:
    """One `mover serve` with images `{id: server or URI}`; its room is a directory of its own."""

    def __init__(
        self,
        room: Path,
        images: Mapping[str, NbdServer | str],
        settings: Tables | None = None,
        front_ends: int = 1,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self.unix = room / "http"
        self.tcp = ("127.0.0.1", 0)
        self.state_dir = room / "state"
        self._room = room
        self._config = room / "mover.toml"
        self.configure(settings or {})
        self._images = {id: image if isinstance(image, str) else image.uri() for id, image in images.items()}
        self._front_ends = front_ends
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._logs = 0
        # What a service manager would give it.
        self.environ: dict[str, str] = {}
        self.pass_fds: Sequence[int] = ()

    def configure(self, settings: Tables) -> None:
        """Write the configuration anew; SIGHUP has it read."""
        self._config.write_text(_toml({"allow": ANYTHING, **settings}))

    # -- start and end ---------------------------------------------------------------------------------------

    def start(self) -> Mover:
        """Start it and wait until it is ready."""
        self.launch()
        ready = wait_until("mover is ready", self._ready_line)
        self.tcp = ("127.0.0.1", int(ready[1]))
        return self

    def launch(self) -> None:
        """Start it, and do not wait."""
        self._logs += 1
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self.command, *(f"--image={id}={url}" for id, url in self._images.items())],
                cwd=self._room, env=_environment(self._room) | self.environ, pass_fds=self.pass_fds,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    @property
    def command(self) -> list[str]:
        """Its command line, without images."""
        serve = [*self._program, "serve", f"--config={self._config}", "--port=0"]
        return [
            *serve,
            f"--unix-socket={self.unix}",
            f"--state-dir={self.state_dir}",
            f"--front-ends={self._front_ends}",
        ]

    @property
    def _log(self) -> Path:
        return self._room / f"mover-{self._logs}.log"

    def log(self) -> str:
        """All that it has printed since it was started last."""
        return self._log.read_text(errors="replace")

    def _ready_line(self) -> re.Match[str] | None:
        assert self.process.poll() is None, f"mover ended with {self.process.returncode}: {self.log()}"
        return READY.search(self.log())

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The supervisor's process."""
        assert self._process is not None
        return self._process

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send the supervisor a signal."""
        self.process.send_signal(number)

    def stop(self) -> int:
        """Ask it to drain, and wait; its exit status."""
        self.signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def stop_clean(self) -> None:
        """Have it drain and end, and find nothing left: no process, socket or slot, and no bug in its log."""
        assert self.stop() == 0
        self.wait_for_end()
        assert not self.unix.exists()
        self.assert_log_clean()
        assert self._process is not None
        self._process = None

    def assert_log_clean(self) -> None:
        """No traceback was printed, and no idle lane was closed with slots that nobody gave back.

        At the end of the service some may be in use: what a client that left had under way comes back a moment later.
        """
        log = self.log()
        assert "Traceback" not in log, log
        closings = re.findall(r"lane closed lane=\d+ reason=\"?idle[^\"=]*\"? slots_used=(\d+)", log)
        assert [used for used in closings if used != "0"] == [], log

    def close(self) -> None:
        """End whatever a test left of it."""
        if self._process is None:
            return
        print(self.log()[-SHOWN_CHARS:])  # pytest shows it where the test failed
        left = self.family()
        for process in left:
            _kill(process.pid)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        psutil.wait_procs(left, 5)

    # -- requests --------------------------------------------------------------------------------------------

    def ask(self, method: str, target: str, body: Body = None, *, unix: bool = False, **headers: str) -> Answer:
        """One request on a connection of its own, over TCP unless `unix`; `Content_Range="…"` is a header."""
        return ask(self.address(unix), method, target, body, None, **headers)

    def answers(self) -> bool:
        """Whether the library can be asked: what was killed has been replaced."""
        try:
            return self.ask("GET", "/v2/images").status == 200
        except OSError:
            return False

    def client(self, *, unix: bool = False) -> Client:
        """A connection for several requests."""
        return Client(self.address(unix))

    def secure(self, context: ssl.SSLContext) -> Secure:
        """Its TCP address, which speaks TLS."""
        return Secure(*self.tcp, context)

    def address(self, unix: bool = False) -> Address:
        """Where it listens."""
        return self.unix if unix else self.tcp

    def workers(self) -> list[dict[str, Any]]:
        """The rows of `GET /workers`."""
        answer = self.ask("GET", "/workers", unix=True)
        assert answer.status == 200, answer
        rows: list[dict[str, Any]] = answer.json()
        return rows

    # -- processes -------------------------------------------------------------------------------------------

    def worker_pid(self, server: NbdServer | None = None) -> int | None:
        """The pid of the worker of `server` (of the only worker, without); None while there is none."""
        for row in self.workers():
            if (server is None or row["export"].startswith(server.uri())) and row["pid"] is not None:
                pid: int = row["pid"]
                return pid
        return None

    def kill_worker(self, server: NbdServer | None = None) -> int:
        """Kill a worker with SIGKILL, waiting for one first if need be; its pid."""
        pid = wait_until("a worker runs", lambda: self.worker_pid(server))
        _kill(pid)
        return pid

    def front_end_pids(self) -> list[int]:
        """The pids of its front ends, in the order of their start."""
        return [process.pid for process in self.children() if _role(process.pid) == "front end"]

    def children(self) -> list[psutil.Process]:
        """The supervisor's children."""
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def family(self) -> list[psutil.Process]:
        """Every process that this Mover has started, orphans included: they all know its room."""
        mark = f"{MARK}={self._room}".encode()
        return [process for process in psutil.process_iter() if mark in _environ(process.pid).split(b"\0")]

    def wait_for_end(self) -> None:
        """Wait until no process of it is left."""
        self.process.wait(PATIENCE_S)
        wait_until(f"no process is left of {self.family()}", lambda: not self.family())

    # -- counting --------------------------------------------------------------------------------------------

    def census(self) -> Census:
        """What it holds just now, the census's own connection included."""
        rows = self.workers()
        working = {row["pid"] for row in rows}
        roles = {pid: _role(pid) for pid in [self.pid, *(child.pid for child in self.children())]}
        roles |= {pid: "spare" for pid, role in roles.items() if role == "worker" and pid not in working}
        # The spare's own descriptors do not count: it is still being started now and then.
        held = [f"{role} {kind}" for pid, role in roles.items() if role != "spare" for kind in _descriptors(pid)]
        return Census(
            processes=Counter(roles.values()),
            descriptors=Counter(held),
            slots_used=sum(lane["slots_used"] for row in rows for lane in row["lanes"]),
            in_flight=sum(row["in_flight"] or 0 for row in rows),
            connections=sum(row["connections"] or 0 for row in rows),
        )

    def settled_census(self) -> Census:
        """The census, once nothing is in flight and it has not changed for a while."""
        seen: list[Census] = []

        def settled() -> Census | None:
            seen.append(self.census())
            last = seen[-STEADY:]
            return last[0] if len(last) == STEADY and last[0].settled and all(one == last[0] for one in last) else None

        return wait_until("mover settles", settled)

    def assert_returns_to(self, before: Census) -> None:
        """Nothing is left of whatever happened since `before` was taken."""
        last = before

        def returned() -> bool:
            nonlocal last
            last = self.census()
            return last == before

        try:
            wait_until("what was held is given back", returned)
        except AssertionError:
            raise AssertionError("\n".join(before.differences(last))) from None


def _environment(room: Path) -> dict[str, str]:
    """This environment without Mover's own variables, with this tree first, and with the mark of all its processes."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MOVER_")}
    return clean | {"PYTHONPATH": str(ROOT), MARK: str(room)}


def _toml(tables: Tables) -> str:
    lines = []
    for table, content in tables.items():
        several = not isinstance(content, Mapping)
        for values in content if not isinstance(content, Mapping) else [content]:
            lines.append(f"[[{table}]]" if several else f"[{table}]")
            lines += [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    return "\n".join(lines) + "\n"


def _role(pid: int) -> str:
    try:
        line = psutil.Process(pid).cmdline()
    except psutil.NoSuchProcess:
        line = []
    if not line:
        return "gone"
    return "front end" if "mover.front" in line else "worker" if "workers.image" in line else "supervisor"


def _descriptors(pid: int) -> list[str]:
    """The kinds of a process's descriptors: `socket`, `memfd:lane`, `anon_inode:[eventfd]`, a file's path."""
    kinds = []
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
            if CATALOGUE.search(target):
                continue
            # Names without their numbers: inodes, and the lane whose memory it is.
            kinds.append(re.sub(r"[\d\[\]:-]*( \(deleted\))?$", "", target))
    except (FileNotFoundError, ProcessLookupError):
        kinds.append("gone meanwhile")
    return kinds


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return b""
