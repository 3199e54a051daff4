"""HTTP servers of disk images, each for the time of a block: Mover itself, and ovirt-imageio."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

import mover as package
from mover.bench import tools
from mover.bench.errors import ClientError
from mover.bench.exports import NbdServer
from mover.bench.processes import Server, running

ROOT = Path(package.__file__).parents[1]
IMAGEIO_VARIABLE = "BENCH_IMAGEIO"
# Longer than any bench: an expired ticket would end a run with 403.
TICKET_S = 86400
CONTROL_S = 10.0

# What differs from imageio's defaults: no systemd, no fixed paths, no fixed port.
IMAGEIO_CONFIGURATION = """\
[daemon]
systemd_enable = false
drop_privileges = false
[tls]
{tls}
[remote]
host = 127.0.0.1
port = 0
[local]
enable = false
[control]
transport = unix
socket = {socket}
[handlers]
keys = stderr
[logger_root]
handlers = stderr
"""


@dataclass(frozen=True)
class Image:
    """A disk as HTTP clients see it, under an id of its own: export `export` of a server, or a raw file.

    `bitmap` is the dirty bitmap that the server offers.
    """

    id: str
    server: NbdServer | Path
    size_bytes: int
    export: str = ""
    bitmap: str | None = None

    @property
    def url(self) -> str:
        """What Mover is told."""
        if isinstance(self.server, Path):
            return self.server.as_uri()
        return self.server.uri(self.export) + (f"&bitmap={self.bitmap}" if self.bitmap else "")

    @property
    def ticket(self) -> dict[str, object]:
        """What imageio is told."""
        ticket = {"uuid": self.id, "size": self.size_bytes, "timeout": TICKET_S, "dirty": self.bitmap is not None}
        if isinstance(self.server, Path):
            return {**ticket, "url": self.server.as_uri(), "ops": ["read"]}
        name = f":exportname={self.export}" if self.export else ""
        ops = ["read"] if self.server.read_only else ["write"]
        return {**ticket, "url": f"nbd:unix:{self.server.socket}{name}", "ops": ops}


@dataclass(frozen=True)
class HttpServer:
    """A running server of images. `unix_socket` is Mover's second listener, where `/workers` is answered."""

    name: str
    base_url: str
    pid: int
    unix_socket: Path | None = None

    def url(self, image_id: str) -> str:
        """Return the URL of an image."""
        return f"{self.base_url}/images/{image_id}"

    def data_processes(self) -> list[psutil.Process]:
        """Return the processes that carry one transfer's bytes: for Mover its busiest front end and its workers."""
        process = psutil.Process(self.pid)
        if self.name != "mover":
            return [process]
        children = [(" ".join(child.cmdline()), child) for child in process.children(recursive=True)]
        front_ends = [child for line, child in children if "mover.front" in line]
        workers = [child for line, child in children if "workers.image" in line]
        return [max(front_ends, key=lambda child: child.cpu_times().user), *workers]


@dataclass(frozen=True)
class Certificate:
    """A certificate that is its own authority, and its key."""

    certificate: Path
    key: Path


def make_certificate(directory: Path) -> Certificate:
    """Make one for 127.0.0.1, of the kind that most hosts have: RSA, 2048 bits."""
    made = Certificate(directory / "tls.crt", directory / "tls.key")
    key = ["-newkey", "rsa:2048", "-nodes", "-keyout", str(made.key), "-out", str(made.certificate)]
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run([tools.path("openssl"), "req", "-x509", *key, *name], check=True, capture_output=True)
    return made


@contextlib.contextmanager
def mover(
    directory: Path,
    images: Sequence[Image],
    tls: Certificate | None = None,
    front_ends: int = 0,
    settings: str = "",
) -> Iterator[HttpServer]:
    """Run `mover serve` with its default settings, serving `images`, for the time of the block.

    With TLS on its TCP listener, another number of front ends, and lines of a configuration, if these are given.
    """
    with tempfile.TemporaryDirectory(prefix="mover-", dir=directory) as name:
        room = Path(name)
        # Instead of this host's /etc/mover/mover.toml, whose listeners may be in use.
        (room / "mover.toml").write_text(settings)
        command = [sys.executable, "-m", "mover", "serve", f"--config={room / 'mover.toml'}", "--port=0"]
        command += [f"--unix-socket={room / 'http'}", f"--state-dir={room / 'state'}"]
        command += [f"--image={image.id}={image.url}" for image in images]
        command += [f"--front-ends={front_ends}"] if front_ends else []
        if tls:
            command += ["--tls-enabled", f"--tls-cert-file={tls.certificate}", f"--tls-key-file={tls.key}"]
        with running("mover serve", command, room / "log", mover_environment(os.environ)) as server:
            base_url = _await_line(server, r"mover: ready on (https?://[\w.:]+)")
            yield HttpServer("mover", base_url, server.pid, room / "http")


def mover_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for `mover serve`: this package first, and the bench's own variable left out.

    Mover's other variables stay, so that a setting can be tried: `MOVER_WORKER_CONNECTIONS=4 mover bench get`.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
    return {key: value for key, value in environment.items() if key != IMAGEIO_VARIABLE} | {"PYTHONPATH": path}


def find_imageio() -> Path | None:
    """Return the `ovirt-imageio` program: $BENCH_IMAGEIO, or the one `make bench` installed; None without."""
    program = Path(os.environ.get(IMAGEIO_VARIABLE) or ROOT / ".venv-imageio/bin/ovirt-imageio")
    return program if program.is_file() else None


@contextlib.contextmanager
def imageio(
    program: Path, directory: Path, images: Sequence[Image], tls: Certificate | None = None
) -> Iterator[HttpServer]:
    """Run ovirt-imageio's daemon, with a ticket for each of `images`, for the time of the block."""
    speaks = f"key_file = {tls.key}\ncert_file = {tls.certificate}\nca_file =" if tls else "enable = false"
    with tempfile.TemporaryDirectory(prefix="imageio-", dir=directory) as name:
        room = Path(name)
        (room / "conf.d").mkdir()
        (room / "conf.d/50-bench.conf").write_text(IMAGEIO_CONFIGURATION.format(socket=room / "control", tls=speaks))
        with running("ovirt-imageio", [str(program), "--conf-dir", str(room)], room / "log") as server:
            port = _await_line(server, r"remote\.service listening on \('127\.0\.0\.1', (\d+)\)")
            _await_line(server, "(Ready for requests)")
            for image in images:
                _install_ticket(room / "control", image)
            yield HttpServer("imageio", f"{'https' if tls else 'http'}://127.0.0.1:{port}", server.pid)


def _await_line(server: Server, pattern: str) -> str:
    """Wait until the server has printed `pattern` and return its group."""

    def found() -> str | None:
        match = re.search(pattern, server.output())
        return match[1] if match else None

    return server.wait_until(found)


def _install_ticket(control: Path, image: Image) -> None:
    status, body = request_over(control, "PUT", f"/tickets/{image.id}", json.dumps(image.ticket).encode())
    if status != http.client.OK:
        raise ClientError(["PUT", f"/tickets/{image.id}"], f"{status}: {body.decode(errors='replace')}")


def request_over(unix_socket: Path, method: str, target: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Send one request to an HTTP server on a Unix socket; return the status and body of its answer."""
    with contextlib.closing(_UnixConnection(unix_socket)) as connection:
        connection.request(method, target, body)
        answer = connection.getresponse()
        return answer.status, answer.read()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=CONTROL_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(CONTROL_S)
        self.sock.connect(str(self._path))
