"""The row `library`, its data: into and out of the library, beside glance_store's own file driver.

glance_store has no HTTP in it: it reads a file, hashes and writes it, in one process. Its seconds are those of its
`add` alone, without the start of Python. Each upload is one curl's, its start included.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from urllib.request import Request, urlopen

from mover.bench import clients, servers
from mover.bench.contest import Contender, Contest
from mover.bench.data import MIB, write_random
from mover.bench.row import Bench
from mover.bench.servers import ROOT, HttpServer, Image

MEGABYTE = 1_000_000
GLANCE_STORE = ROOT / ".venv-glance-store" / "bin" / "python"
# Of each five MiB, one is data: 80 % zeros.
PERIOD = 5

ADD = """\
import sys, time
import glance_store
from glance_store._drivers import filesystem
from oslo_config import cfg
source, directory, image, thin = sys.argv[1:]
conf = cfg.ConfigOpts()
glance_store.register_opts(conf)
conf([], project="bench", default_config_files=[])
conf.set_override("filesystem_store_datadir", directory, group="glance_store")
conf.set_override("filesystem_thin_provisioning", thin == "thin", group="glance_store")
store = filesystem.Store(conf)
store.configure()
with open(source, "rb") as data:
    began = time.perf_counter()
    store.add(image, data, 0, "sha512")
    print(time.perf_counter() - began)
"""

MD5 = """\
import hashlib, sys, time
digest, buffer = hashlib.md5(), bytearray(1 << 20)
with open(sys.argv[1], "rb") as data:
    began = time.perf_counter()
    while count := data.readinto(buffer):
        digest.update(memoryview(buffer)[:count])
    print(time.perf_counter() - began)
"""


class Library:
    """Mover's library, and glance_store's driver, each with one image at a time."""

    def __init__(self, http: HttpServer, bench: Bench) -> None:
        self._http = http
        self._glance = bench.directory / "glance"
        self._numbers = count()

    def ask(self, method: str, path: str, body: object = None) -> dict[str, str]:
        """The JSON of an answer, empty if there is none."""
        data = None if body is None else json.dumps(body).encode()
        asked = Request(self._http.base_url + path, data, {"Content-Type": "application/json"}, method=method)
        with urlopen(asked) as answer:
            text = answer.read()
        found: dict[str, str] = json.loads(text) if text else {}
        return found

    def new_image(self) -> str:
        """A queued image."""
        return self.ask("POST", "/v2/images", {"disk_format": "raw", "container_format": "bare"})["id"]

    def url(self, image: str) -> str:
        """Where an image's data is."""
        return f"{self._http.base_url}/v2/images/{image}/file"

    def upload(self, source: Path) -> float:
        """The seconds that a whole upload takes; the image is deleted after that."""
        image = self.new_image()
        command = clients.curl("--output", "/dev/null", "--header", "Content-Type: application/octet-stream")
        seconds, _ = clients.timed([*command, "--upload-file", str(source), self.url(image)])
        self.ask("DELETE", f"/v2/images/{image}")
        return seconds

    def glance_add(self, source: Path, thin: bool) -> float:
        """The seconds that glance_store's `add` takes."""
        image = f"image-{next(self._numbers)}"
        command = [str(GLANCE_STORE), "-c", ADD, str(source), str(self._glance), image, "thin" if thin else ""]
        seconds = _printed(command)
        (self._glance / image).unlink()
        return seconds


def transfers(bench: Bench) -> list[Contest]:
    """Uploads of random data and of 80 % zeros, what the latter takes of the disk, and a download."""
    http = bench.enter(servers.mover(bench.directory, [Image("disk", bench.data, bench.size_bytes)]))
    held, zeros = Library(http, bench), bench.directory / "zeros"
    _write_mostly_zeros(zeros, bench.size_bytes)
    rate = partial(_rate, bench.size_bytes)
    md5 = Contender(
        "md5", "python hashlib.md5 FILE", rate(lambda: _printed([sys.executable, "-c", MD5, str(bench.data)]))
    )
    uploads = [*_uploads(held, bench.data, rate, thin=False), md5]
    return [
        Contest("upload", "MB/s", uploads),
        Contest("upload of 80 % zeros, thin", "MB/s", _uploads(held, zeros, rate, thin=True)),
        Contest("allocated of 80 % zeros, per byte of data", "", [_allocated(held, zeros, http)], once=True),
        Contest("download", "MB/s", list(_downloads(held, bench, http, rate))),
    ]


def _rate(size_bytes: int, seconds: Callable[[], float]) -> Callable[[], float]:
    return lambda: size_bytes / MEGABYTE / seconds()


def _uploads(
    held: Library, source: Path, rate: Callable[[Callable[[], float]], Callable[[], float]], thin: bool
) -> list[Contender]:
    contenders = [Contender("mover", "curl --upload-file FILE HTTP", rate(lambda: held.upload(source)))]
    if GLANCE_STORE.exists():
        add = rate(lambda: held.glance_add(source, thin))
        contenders.append(Contender("glance_store", "python: filesystem.Store.add(FILE)", add))
    return contenders


def _allocated(held: Library, source: Path, http: HttpServer) -> Contender:
    """How much of the disk an image takes, beside what it has of data."""

    def measure() -> float:
        image = held.new_image()
        command = clients.curl("--output", "/dev/null", "--header", "Content-Type: application/octet-stream")
        clients.timed([*command, "--upload-file", str(source), held.url(image)])
        assert http.unix_socket is not None
        stored = http.unix_socket.parent / "state" / "images" / image
        allocated = stored.stat().st_blocks * 512
        held.ask("DELETE", f"/v2/images/{image}")
        return allocated / (source.stat().st_size / PERIOD)

    return Contender("mover", "curl --upload-file FILE HTTP; stat", measure)


def _downloads(
    held: Library, bench: Bench, http: HttpServer, rate: Callable[[Callable[[], float]], Callable[[], float]]
) -> Iterator[Contender]:
    """The image from the library, and the same file as an image."""
    image = held.new_image()
    command = clients.curl("--output", "/dev/null", "--header", "Content-Type: application/octet-stream")
    clients.timed([*command, "--upload-file", str(bench.data), held.url(image)])
    for name, url in (("library", held.url(image)), ("image", http.url("disk"))):
        get = partial(clients.curl_get, url, bench.size_bytes)
        yield Contender(name, "curl --output /dev/null HTTP", rate(get))


def _printed(command: list[str]) -> float:
    """The number that a program prints."""
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)


def _write_mostly_zeros(file: Path, size_bytes: int) -> None:
    file.touch()
    for at in range(0, size_bytes - MIB + 1, PERIOD * MIB):
        write_random(file, at, MIB)
    with file.open("r+b") as whole:
        whole.truncate(size_bytes)
