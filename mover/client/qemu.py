"""Image files that are more than their bytes: a private qemu-nbd reads them."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mover.client.errors import LocalError

if TYPE_CHECKING:
    from mover.client.nbd import NbdConnection

CONNECTIONS = 64
END_S = 60.0
LOG_BYTES = 4096
# glibc gives memory of 128 KiB and more back to the kernel with every request; each one then pays for its pages again.
# 32 MiB is glibc's limit. Measured: reads 2 to 3.3 times as fast.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(31 << 20), "MALLOC_TRIM_THRESHOLD_": str(128 << 20)}
# systemd's way to hand over a socket wants the pid of the very process that takes it.
# The socket comes as standard input: a shell's redirection takes no descriptor above 9.
ACTIVATED = 'exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@"'
INSTALL = "install qemu-utils, or what your distribution calls it"


def run(program: str, *arguments: str, path: Path) -> str:
    """Run a program on the file `path` to its end and return what it printed. Raises LocalError with its last line."""
    done = subprocess.run(
        [_tool(program), *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise LocalError(path, f"{program} {arguments[0]} of", _last_line(done.stderr + done.stdout), "see its manual")
    return done.stdout


class QemuNbd:
    """A qemu-nbd that serves one image file to this process alone, and ends with it however it ends.

    Without --persistent it leaves with its last client, and one connection, made before it is started, is held as
    long as this object lives: a process that is killed at any moment leaves no qemu-nbd and no lock behind, and the
    file is closed as it should be.
    """

    def __init__(self, path: Path, image_format: str) -> None:
        """Start it, and wait until it serves. Raises LocalError."""
        self._path = path
        # Neither socket nor log has a name, but for a moment: who is killed leaves nothing behind.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this object
        self._socket = -1
        self._process: subprocess.Popen[bytes] | None = None
        self._held: NbdConnection | None = None
        try:
            self._start([
                f"--format={image_format}", f"--shared={CONNECTIONS}", "--read-only", "--", os.path.abspath(path),
            ])  # fmt: skip
        except BaseException:
            self.close()
            raise

    def _start(self, arguments: list[str]) -> None:
        command = [_tool("qemu-nbd"), *arguments]
        with socket.socket(socket.AF_UNIX) as listener:
            # /tmp, not the image's directory: the path of a socket is short.
            with tempfile.TemporaryDirectory(prefix="mover-") as directory:
                listener.bind(f"{directory}/nbd")
                self._socket = os.open(f"{directory}/nbd", os.O_PATH | os.O_CLOEXEC)
            listener.listen(CONNECTIONS)
            with socket.socket(socket.AF_UNIX) as first:
                first.connect(self._address)
                self._process = subprocess.Popen(
                    ["/bin/sh", "-c", ACTIVATED, "sh", *command],
                    stdin=listener.fileno(), stdout=self._log, stderr=self._log,
                    env=os.environ | ALLOCATOR,
                    start_new_session=True,  # the terminal's Ctrl-C is ours, and the file is closed after it
                )  # fmt: skip
                held = first.detach()
        self._held = self._handshake(held)

    @property
    def _address(self) -> str:
        """The socket, by its descriptor: its name is gone."""
        return f"/proc/self/fd/{self._socket}"

    def _said(self) -> str:
        """The last line that qemu-nbd printed."""
        text = os.pread(self._log.fileno(), LOG_BYTES, max(os.fstat(self._log.fileno()).st_size - LOG_BYTES, 0))
        return _last_line(text.decode(errors="replace"))

    def _handshake(self, fd: int) -> NbdConnection:
        from mover.client.nbd import NbdConnection
        from workers.nbd_handle import NbdError

        try:
            return NbdConnection(socket.socket(fileno=fd))
        except NbdError as error:
            self._end()
            why = self._said() or error.what
            raise LocalError(self._path, "opening by qemu-nbd", why, "check the file and its format") from error

    @property
    def connection(self) -> NbdConnection:
        """The connection that is held; for the thread that owns this object."""
        assert self._held is not None
        return self._held

    def connect(self) -> NbdConnection:
        """Another connection, for another thread. Raises LocalError."""
        from mover.client.nbd import NbdConnection, connected

        with self.errors("connecting to qemu-nbd of"):
            return NbdConnection(connected(self._address))

    @contextlib.contextmanager
    def errors(self, operation: str) -> Iterator[None]:
        """What goes wrong on a connection within, as an error of the file, with the last thing that qemu-nbd said."""
        from workers.nbd_handle import NbdError

        try:
            yield
        except NbdError as error:
            said = self._said()
            why = f"{error.what}{': ' if said else ''}{said}"
            raise LocalError(self._path, operation, why, "free what it needs, or use another place") from error

    def close(self) -> None:
        """Close the image file; connections given out must be closed before."""
        if self._held is not None:
            self._held.close()
            self._held = None
        self._end()
        self._log.close()
        if self._socket >= 0:
            os.close(self._socket)
            self._socket = -1

    def _end(self) -> None:
        """It leaves by itself once its last client has; it is asked to if it does not."""
        if self._process is None:
            return
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._process = None


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise LocalError(name, "running", "it is not installed", INSTALL)
    return path


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""
