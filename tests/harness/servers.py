"""NBD servers for tests: qemu-nbd over a file, nbdkit over a plugin; started, killed and started again in place."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.harness.waiting import PATIENCE_S, wait_until

# A second client of `qemu-nbd --shared=1` hangs; this many are more than any test opens.
CLIENTS = 64
# Who has not ended so long after SIGTERM is killed.
LISTENING_S = 5.0
# For a TCP port that the system chose, both take a listening socket as systemd gives it: descriptor 3, announced to
# the very process that takes it. Not for Unix sockets: there the kernel would name the test as the peer, for ever.
ACTIVATED = 'exec 3<&"$1"; shift; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@"'


class NbdServer:
    """An NBD server on a Unix socket, or on a TCP port of 127.0.0.1 that the system chose."""

    def __init__(self, room: Path, name: str, command: Sequence[str], *, tcp: bool = False) -> None:
        self.socket = room / f"{name}.nbd"
        self.port = 0
        self._tcp = tcp
        self._pid_file = room / f"{name}.pid"
        self._log = room / f"{name}.log"
        self._command = [word.replace("{pid}", str(self._pid_file)) for word in command]
        self._process: subprocess.Popen[bytes] | None = None

    def uri(self, export: str = "") -> str:
        """The URI of one of its exports."""
        return f"nbd://127.0.0.1:{self.port}/{export}" if self._tcp else f"nbd+unix:///{export}?socket={self.socket}"

    @property
    def pid(self) -> int:
        """Its process id, while it runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> NbdServer:
        """Start it, on the same address as before if there was one, and return when it listens."""
        assert not self.running
        self._pid_file.unlink(missing_ok=True)
        self.socket.unlink(missing_ok=True)
        if self._tcp:
            with self._listener() as listener:
                fd = listener.fileno()
                self._run(["/bin/bash", "-c", ACTIVATED, "bash", str(fd), *self._command], fd)
        else:
            self._run([self._command[0], *self._address, *self._command[1:]])
        wait_until(f"{self._command[0]} serves: {self.log()}", self._serves)
        return self

    def _run(self, command: list[str], *fds: int) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, pass_fds=fds, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def _address(self) -> list[str]:
        return [f"--socket={self.socket}" if "qemu-nbd" in self._command[0] else f"--unix={self.socket}"]

    def _listener(self) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(CLIENTS)
        self.port = listener.getsockname()[1]
        return listener

    def _serves(self) -> bool:
        """Both servers write their pid file when they have begun to serve."""
        assert self.running, f"{self._command} ended: {self.log()}"
        return self._pid_file.exists() and self._pid_file.read_text().strip() != ""

    def log(self) -> str:
        """All that it has printed."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it with SIGTERM; SIGKILL if it does not listen."""
        try:
            self._end(signal.SIGTERM, LISTENING_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def _end(self, number: signal.Signals, patience_s: float = PATIENCE_S) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(patience_s)
            self._process = None

    def pause(self) -> None:
        """Have it stand still, its connections open."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Have it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it, in whatever state a test left it, and remove its socket."""
        if self.running:
            self.resume()
        self.stop()
        with contextlib.suppress(FileNotFoundError):
            self.socket.unlink()


def qemu_nbd(
    room: Path,
    name: str,
    image: Path,
    *,
    image_format: str = "raw",
    export: str = "",
    read_only: bool = False,
    bitmap: str | None = None,
    tcp: bool = False,
    options: Sequence[str] = (),
) -> NbdServer:
    """A qemu-nbd that serves `image`; not yet started."""
    command = [_tool("qemu-nbd"), "--persistent", f"--shared={CLIENTS}", "--pid-file={pid}", f"--format={image_format}"]
    command += [f"--export-name={export}"] if export else []
    command += ["--read-only"] if read_only else []
    command += [f"--bitmap={bitmap}"] if bitmap else []
    return NbdServer(room, name, [*command, *options, str(image)], tcp=tcp)


def nbdkit(
    room: Path,
    name: str,
    *arguments: str,
    filters: Sequence[str] = (),
    read_only: bool = False,
    threads: int | None = 1,
    tcp: bool = False,
) -> NbdServer:
    """An nbdkit with a plugin, its parameters and filters (outermost first); not yet started.

    One thread by default: nbdkit 1.32 crashes when a client dies with commands in flight and there are several.
    """
    command = [_tool("nbdkit"), "--foreground", "--pidfile={pid}", *(f"--filter={name}" for name in filters)]
    command += ["--readonly"] if read_only else []
    command += [f"--threads={threads}"] if threads else []
    return NbdServer(room, name, [*command, *arguments], tcp=tcp)


def _tool(name: str) -> str:
    path = shutil.which(name)
    assert path is not None, f"{name} is missing: mark the test with `nbd`"
    return path
