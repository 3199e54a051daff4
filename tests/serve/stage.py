"""A stage for the supervisor: the real one as a process, with fakes for front ends and workers that report to us."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil
from msgspec.structs import replace

from config.settings import AllowSettings, LibrarySettings, ServeSettings, Settings, SupervisorSettings, WorkerSettings
from tests.harness.waiting import PATIENCE_S

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

Event = dict[str, Any]


class Stage:
    """One supervisor, what its children report, and their strings."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.unix_path = str(directory / "mover.sock")
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._line.bind(str(directory / "stage"))
        self._line.settimeout(PATIENCE_S)
        self._events: list[Event] = []
        self._addresses: dict[int, bytes] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr = b""
        self._questions = 0
        self.pids: set[int] = set()

    # -- the supervisor --------------------------------------------------------------------------------------

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def _stderr_fd(self) -> int:
        assert self.process.stderr is not None
        return self.process.stderr.fileno()

    def settings(self, **changes: Any) -> Settings:
        serve = ServeSettings(
            port=0,
            front_ends=changes.pop("front_ends", 1),
            state_dir=str(self.directory / "state"),
            unix_socket=changes.pop("unix_socket", self.unix_path),
            drain_s=changes.pop("drain_s", 10.0),
        )
        allow = AllowSettings(("/",), ("/",), ("*",), ("/",))
        return Settings(serve=serve, **{"library": LibrarySettings(enabled=False), "allow": allow, **changes})

    def with_serve(self, settings: Settings, **changes: Any) -> Settings:
        return replace(settings, serve=replace(settings.serve, **changes))

    def start(self, settings: Settings | None = None, **misdeeds: str) -> None:
        """Start the supervisor; `front="…"` and `worker="…"` are misdeeds of the fakes."""
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "FAKE_STAGE": str(self.directory / "stage")}
        environ |= {f"FAKE_{who.upper()}": words for who, words in misdeeds.items()}
        file = self.directory / "settings.json"
        file.write_bytes(msgspec.json.encode(settings or self.settings()))
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "supervise.py"), str(file)], env=environ, stderr=subprocess.PIPE
        )

    def line(self, containing: str) -> str:
        """The next line of standard error that holds this text."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            *lines, rest = self._stderr.split(b"\n")
            for at, line in enumerate(lines):
                if containing.encode() in line:
                    self._stderr = b"\n".join([*lines[at + 1 :], rest])
                    return line.decode()
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._stderr_fd, self._line.fileno()], [], [], max(left, 0))
            if self._line.fileno() in ready:
                self._hear()  # a fake whose reports nobody reads stands still
                continue
            more = os.read(self._stderr_fd, 65536) if ready else b""
            assert more, f"no {containing!r} in {self._stderr.decode()}"
            self._stderr += more

    def silent_for(self, seconds: float) -> bool:
        """Whether the supervisor says nothing on standard error for so long."""
        return not select.select([self._stderr_fd], [], [], seconds)[0]

    def ready(self, settings: Settings | None = None, **misdeeds: str) -> str:
        """Start the supervisor and wait until it is ready; its ready line."""
        settings = settings or self.settings()
        front_ends = settings.serve.front_ends
        self.start(settings, **misdeeds)
        line = self.line("mover: ready on")
        wait_for("there is a spare worker", lambda: self._count_children() > front_ends)
        self._children = self._count_children()
        return line

    def status(self) -> int:
        """The supervisor's exit status."""
        return self.process.wait(PATIENCE_S)

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def fds(self) -> list[str]:
        """What the supervisor's descriptors are, once it is done with what it was at: a start of a child has more."""
        self._questions += 1
        self.order(self._front, "ask", question=self._questions, about="workers")
        self.event("Answer", pid=self._front, question=self._questions, more=False)
        found = []
        for fd in os.listdir(f"/proc/{self.process.pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                found.append(os.readlink(f"/proc/{self.process.pid}/fd/{fd}"))
        return found

    def fds_at_rest(self) -> list[str]:
        """The same, once the first worker that was taken has a spare one in its place, a while later."""
        wait_for("there is a spare worker again", lambda: self._count_children() > self._children)
        return self.fds()

    def _count_children(self) -> int:
        return len(psutil.Process(self.process.pid).children())

    # -- the children ----------------------------------------------------------------------------------------

    def event(self, name: str, who: str = "", **values: object) -> Event:
        """The oldest unread event like this."""
        wanted = {"event": name, **({"who": who} if who else {}), **values}
        deadline = time.monotonic() + 2 * PATIENCE_S
        while True:
            assert time.monotonic() < deadline, f"waited in vain for {wanted}"
            for event in self._events:
                if wanted.items() <= event.items():
                    self._events.remove(event)
                    return event
            self._hear()

    def unread(self, name: str) -> list[Event]:
        """Events of this name that have arrived and were not asked for yet."""
        with contextlib.suppress(BlockingIOError):
            self._line.settimeout(0)
            while True:
                self._hear()
        self._line.settimeout(PATIENCE_S)
        return [event for event in self._events if event["event"] == name]

    def silent_for_events(self, seconds: float) -> bool:
        """Whether no fake reports anything for so long."""
        return not select.select([self._line], [], [], seconds)[0]

    def _hear(self) -> None:
        packet, address = self._line.recvfrom(1 << 18)
        event = json.loads(packet)
        self._addresses[event["pid"]] = address
        self.pids.add(event["pid"])
        self._events.append(event)

    def order(self, pid: int, do: str, **values: object) -> None:
        """Have a fake do something."""
        self._line.sendto(json.dumps({"do": do, **values}).encode(), self._addresses[pid])

    def open(self, front: int, lane: int = 1, socket_path: str = "/nowhere", arena_bytes: int = 1 << 20) -> None:
        """Have a front end open a lane."""
        export = {"transport": "unix", "socket": socket_path}
        self.order(front, "open", lane=lane, export=export, arena_bytes=arena_bytes)

    def attached(self, front: int, lane: int = 1, socket_path: str = "/nowhere") -> int:
        """Have a front end open a lane; the pid of its worker when both are introduced."""
        self.open(front, lane, socket_path)
        worker: int = self.event("Attach")["pid"]
        self.event("LaneSocket", lane=lane)
        return worker

    def workers(self, front: int) -> list[Event]:
        """What `GET /workers` would answer."""
        rows: list[Event] = json.loads(self.ask(front, "workers"))
        return rows

    def ask(self, front: int, about: str) -> str:
        """What the supervisor answers a front end."""
        self.order(front, "ask", question=7, about=about)
        body = ""
        while True:
            piece = self.event("Answer", question=7)
            body += str(piece["body"])
            if not piece["more"]:
                return body

    def front(self) -> int:
        """The pid of a front end that has begun and was not asked for yet."""
        pid: int = self.event("Begin")["pid"]
        self._front = pid
        return pid

    def close(self) -> None:
        """Whatever a failed test left."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            assert self._process.stderr is not None
            os.set_blocking(self._process.stderr.fileno(), False)  # an orphan may hold the other end
            print(self._stderr.decode(), (self._process.stderr.read() or b"").decode())
            self._process.stderr.close()
        self._line.close()


def short_waits(**changes: Any) -> dict[str, Any]:
    """Settings with deadlines short enough to be met by a test that wants them to pass."""
    return {
        "worker": WorkerSettings(fence_s=changes.pop("fence_s", 5.0)),
        "supervisor": SupervisorSettings(backoff_s=0.2, **changes),
    }


def wait_for(what: str, holds: Callable[[], bool]) -> None:
    """Wait for something that nobody announces, like a process's end seen from outside."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        select.select([], [], [], 0.01)


def is_gone(pid: int) -> bool:
    """Whether no such process is left (not even a zombie)."""
    return not os.path.exists(f"/proc/{pid}")


def is_zombie(pid: int) -> bool:
    """Whether the process is dead, and its parent has not asked for its status yet."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
