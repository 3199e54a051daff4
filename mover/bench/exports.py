"""NBD servers, each for the time of a block: qemu-nbd over a disk image, nbdkit over a plugin."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mover.bench import tools
from mover.bench.processes import Server, running

# qemu-nbd serves one client by default, and a second one hangs: nbdcopy opens 4, eight imageio connections 8.
CLIENTS = 32


@dataclass(frozen=True)
class NbdServer:
    """A running NBD server on a Unix socket."""

    socket: Path
    pid: int
    read_only: bool

    def uri(self, export: str = "") -> str:
        """Return the NBD URI of an export of this server."""
        return f"nbd+unix:///{export}?socket={self.socket}"


@contextlib.contextmanager
def qemu_nbd(
    directory: Path, image: Path, image_format: str = "raw", *, read_only: bool = False, bitmap: str | None = None
) -> Iterator[NbdServer]:
    """Serve `image` by qemu-nbd, with its default cache mode, for the time of the block."""
    with _room(directory, "qemu-nbd-") as room:
        command = [tools.path("qemu-nbd"), "--persistent", f"--shared={CLIENTS}", f"--format={image_format}"]
        command += ["--read-only"] if read_only else []
        command += [f"--bitmap={bitmap}"] if bitmap else []
        command += [f"--socket={room / 'socket'}", f"--pid-file={room / 'pid'}", str(image)]
        with running("qemu-nbd", command, room / "log") as server:
            _await_pid_file(server, room / "pid")
            yield NbdServer(room / "socket", server.pid, read_only)


@contextlib.contextmanager
def nbdkit(directory: Path, *arguments: str, filters: Sequence[str] = ()) -> Iterator[NbdServer]:
    """Serve a plugin by nbdkit for the time of the block; `arguments` are the plugin and its parameters."""
    with _room(directory, "nbdkit-") as room:
        command = [tools.path("nbdkit"), "--foreground", "--unix", str(room / "socket")]
        command += ["--pidfile", str(room / "pid"), *(f"--filter={name}" for name in filters), *arguments]
        with running("nbdkit", command, room / "log") as server:
            _await_pid_file(server, room / "pid")
            yield NbdServer(room / "socket", server.pid, read_only=False)


@contextlib.contextmanager
def _room(directory: Path, prefix: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=prefix, dir=directory) as room:
        yield Path(room)


def _await_pid_file(server: Server, pid_file: Path) -> None:
    """Both servers write their pid file when they are listening, not before."""
    server.wait_until(lambda: pid_file.exists() or None)
