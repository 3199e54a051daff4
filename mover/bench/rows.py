"""The rows of `mover bench`: for each, the servers it needs and the contests held on them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from mover.bench import clients
from mover.bench.asking import checksum, extents
from mover.bench.backups import backup
from mover.bench.client_row import client
from mover.bench.contest import Contender, Contest, as_rate
from mover.bench.data import MIB, SparseLayout, write_random
from mover.bench.exports import NbdServer, nbdkit, qemu_nbd
from mover.bench.library_data import transfers
from mover.bench.library_lists import lists
from mover.bench.row import Bench, Row
from mover.bench.secure import tls
from mover.bench.servers import HttpServer, Image
from mover.bench.stores import stores

IMAGES_AT_ONCE = 8
FIRST_BYTE_IMAGE_BYTES = 16 * MIB
# New exports come one after the other, not back to back: Mover keeps one worker process ready for the next one.
BETWEEN_FIRST_BYTES_S = 0.5
# A read as nbdkit's log filter writes it; its completion, which begins with "...", is another line.
LOGGED_READ = re.compile(r" Read id=\d+ offset=0x([0-9a-f]+) count=0x([0-9a-f]+) ")


def get(bench: Bench) -> list[Contest]:
    """GET of the whole image from qemu-nbd, discarded."""
    export = bench.enter(qemu_nbd(bench.directory, bench.data))
    https = bench.http_servers([Image("disk", export, bench.size_bytes)])
    contenders = [*_downloads(https, bench.size_bytes), _nbdcopy_to_null(export)]
    return [Contest("", "MB/s", _as_rates(contenders, bench.size_bytes))]


def put(bench: Bench) -> list[Contest]:
    """PUT of the whole image into nbdkit's memory plugin, without a flush."""
    export = bench.enter(nbdkit(bench.directory, "memory", str(bench.size_bytes)))
    https = bench.http_servers([Image("disk", export, bench.size_bytes)])
    uploads = [
        Contender(
            http.name, "curl -T FILE HTTP?flush=n", partial(clients.curl_put, f"{http.url('disk')}?flush=n", bench.data)
        )
        for http in https
    ]
    nbdcopy = Contender("nbdcopy", "nbdcopy FILE NBD", _seconds(clients.nbdcopy(str(bench.data), export.uri())))
    contenders = [*uploads, nbdcopy]
    return [Contest("", "MB/s", _as_rates(contenders, bench.size_bytes))]


def small(bench: Bench) -> list[Contest]:
    """4 KiB ranged GETs from qemu-nbd over keep-alive connections; nbdcopy has no such task."""
    export = bench.enter(qemu_nbd(bench.directory, bench.data))
    https = bench.http_servers([Image("disk", export, bench.size_bytes)])

    def contender(http: HttpServer, connections: int) -> Contender:
        run = partial(clients.wrk, http.url("disk"), connections, bench.size_bytes, bench.directory)
        return Contender(http.name, f"wrk --threads=1 --connections={connections}", run)

    return [
        Contest("1 connection", "requests/s", [contender(http, 1) for http in https]),
        Contest("8 connections", "requests/s", [contender(http, 8) for http in https]),
    ]


def holes(bench: Bench) -> list[Contest]:
    """GET of a sparse image, 20 times as large as its data, from nbdkit, which logs each read."""
    layout = SparseLayout(bench.size_bytes)
    file, log = bench.directory / "sparse", bench.directory / "sparse.log"
    layout.write(file)
    export = bench.enter(nbdkit(bench.directory, "file", f"file={file}", f"logfile={log}", filters=["log"]))
    https = bench.http_servers([Image("disk", export, layout.size_bytes)])
    whole = [*_downloads(https, layout.size_bytes), _nbdcopy_to_null(export)]
    counted = [replace(each, run=partial(_hole_reads, each, layout, log)) for each in whole if each.name != "imageio"]
    return [
        Contest("whole", "s", whole),
        Contest("rate", "MB/s", [_part(https[0], "holes", *layout.long_hole), _part(https[0], "data", *layout.run)]),
        Contest("NBD reads that met a hole", "reads", counted, once=True),
    ]


def _part(http: HttpServer, name: str, offset: int, length: int) -> Contender:
    run = partial(clients.curl_get_range, http.url("disk"), offset, length)
    return as_rate(
        Contender(f"{http.name} on {name}", f"curl --range {offset}-{offset + length - 1} HTTP", run), length
    )


def _hole_reads(contender: Contender, layout: SparseLayout, log: Path) -> int:
    """Let the contender run and return how many of the NBD reads it caused met a hole."""
    before = log.stat().st_size
    contender.run()
    reads = LOGGED_READ.findall(log.read_text()[before:])
    return sum(layout.touches_hole(int(offset, 16), int(length, 16)) for offset, length in reads)


def images(bench: Bench) -> list[Contest]:
    """GETs of eight images at once, each from a qemu-nbd of its own, summed."""
    exports = [bench.enter(qemu_nbd(bench.directory, bench.data, read_only=True)) for _ in range(IMAGES_AT_ONCE)]
    disks = [Image(f"disk-{number}", export, bench.size_bytes) for number, export in enumerate(exports)]

    def contender(name: str, command: str, commands: list[list[str]]) -> Contender:
        return Contender(name, f"{IMAGES_AT_ONCE} x {command}", partial(clients.timed_together, commands))

    contenders = [
        contender(http.name, "curl HTTP", [clients.curl_to_null(http.url(disk.id)) for disk in disks])
        for http in bench.http_servers(disks)
    ]
    nbdcopys = [clients.nbdcopy(export.uri(), "null:") for export in exports]
    contenders.append(contender("nbdcopy", "nbdcopy NBD null:", nbdcopys))
    return [Contest("", "MB/s", _as_rates(contenders, IMAGES_AT_ONCE * bench.size_bytes))]


def firstbyte(bench: Bench) -> list[Contest]:
    """Time from a GET to the first byte of its body, of an export that has no worker yet."""
    file = bench.directory / "small"
    write_random(file, 0, FIRST_BYTE_IMAGE_BYTES)
    # One nbdkit answers to any export name, and each name is an export of its own to Mover: a new one for each run.
    export = bench.enter(nbdkit(bench.directory, "file", f"file={file}"))
    fresh, connected = ([f"{case}-{run}" for run in range(bench.runs + 1)] for case in ("fresh", "connected"))
    disks = [Image(name, export, FIRST_BYTE_IMAGE_BYTES, name) for name in (*fresh, *connected)]
    https = bench.http_servers(disks)

    def contenders(names: list[str], *, connected: bool) -> list[Contender]:
        return [Contender(http.name, "Python's http.client", _first_byte(http, names, connected)) for http in https]

    to_stdout = clients.nbdcopy(export.uri(), "-")
    nbdcopy = Contender("nbdcopy", "nbdcopy NBD -", lambda: 1000 * clients.first_byte_of(to_stdout))
    return [
        Contest("fresh connection", "ms", [*contenders(fresh, connected=False), nbdcopy]),
        Contest("open connection", "ms", contenders(connected, connected=True)),
    ]


def _first_byte(http: HttpServer, names: list[str], connected: bool) -> Callable[[], float]:
    unused = iter(names)

    def measure() -> float:
        time.sleep(BETWEEN_FIRST_BYTES_S)
        return 1000 * clients.first_byte(http, next(unused), connected=connected)

    return measure


def memory(bench: Bench) -> list[Contest]:
    """Unshared memory of the processes that carry one GET, at its peak."""
    export = bench.enter(qemu_nbd(bench.directory, bench.data))
    contenders = [
        Contender(
            http.name,
            "front end + worker" if http.name == "mover" else "daemon",
            partial(clients.peak_memory, clients.curl_to_null(http.url("disk")), http.data_processes),
        )
        for http in bench.http_servers([Image("disk", export, bench.size_bytes)])
    ]
    nbdcopy = Contender(
        "nbdcopy", "nbdcopy NBD null:", partial(clients.peak_memory, clients.nbdcopy(export.uri(), "null:"))
    )
    return [Contest("", "MiB", [*contenders, nbdcopy])]


def file(bench: Bench) -> list[Contest]:
    """GET of a whole raw file that Mover opens itself, and of the same one through qemu-nbd."""
    export = bench.enter(qemu_nbd(bench.directory, bench.data, read_only=True))
    https = bench.http_servers([Image("disk", bench.data, bench.size_bytes), Image("nbd", export, bench.size_bytes)])
    through_nbd = Contender(
        "mover by qemu-nbd", "curl --output /dev/null HTTP",
        partial(clients.curl_get, https[0].url("nbd"), bench.size_bytes),
    )  # fmt: skip
    contenders = [*_downloads(https, bench.size_bytes), through_nbd]
    return [Contest("", "MB/s", _as_rates(contenders, bench.size_bytes))]


def _downloads(https: Sequence[HttpServer], size_bytes: int) -> list[Contender]:
    """One whole GET of the image "disk" from each server, in seconds."""
    return [
        Contender(http.name, "curl --output /dev/null HTTP", partial(clients.curl_get, http.url("disk"), size_bytes))
        for http in https
    ]


def _nbdcopy_to_null(export: NbdServer) -> Contender:
    """nbdcopy of the whole image to nowhere, in seconds."""
    return Contender("nbdcopy", "nbdcopy NBD null:", _seconds(clients.nbdcopy(export.uri(), "null:")))


def _seconds(command: Sequence[str]) -> Callable[[], float]:
    return lambda: clients.timed(command)[0]


def _as_rates(contenders: Sequence[Contender], moved_bytes: int) -> list[Contender]:
    return [as_rate(contender, moved_bytes) for contender in contenders]


def library(bench: Bench) -> list[Contest]:
    """Images' data into and out of the library, and pages of its lists."""
    return [*transfers(bench), *lists(bench)]


ROWS = {
    "get": Row("GET whole, discarded", ["curl", "nbdcopy", "qemu-nbd"], get),
    "put": Row("PUT whole, no flush", ["curl", "nbdcopy", "nbdkit"], put),
    "small": Row("4 KiB ranged GETs", ["qemu-nbd", "wrk"], small),
    "holes": Row("GET of a sparse image", ["curl", "nbdcopy", "nbdkit"], holes),
    "images": Row("eight images at once", ["curl", "nbdcopy", "qemu-nbd"], images),
    "firstbyte": Row("first byte of an export without a worker", ["nbdcopy", "nbdkit"], firstbyte),
    "memory": Row("unshared memory during a GET", ["curl", "nbdcopy", "qemu-nbd"], memory),
    "file": Row("GET of a raw file", ["curl", "qemu-nbd"], file),
    "extents": Row("dirty extents of an image in pieces", ["curl", "qemu-img", "qemu-io", "qemu-nbd", "wrk"], extents),
    "checksum": Row("checksum of the whole", ["curl", "qemu-nbd", "wrk"], checksum),
    "tls": Row("over HTTPS", ["curl", "nbdkit", "openssl", "qemu-nbd"], tls),
    # Its target is sixfold where a client has the server zero it without holes.
    "client": Row("Mover's client beside imageio's", ["nbdkit", "qemu-img", "qemu-nbd"], client, copies=9),
    # The data, as much in the library, a copy on its way, the zeros' data, and glance_store's copy.
    "library": Row("the image library: data in and out, lists", ["curl"], library, copies=5),
    # The data, the disk that images go to, one image that stays and one on its way, and nbdcopy's copy.
    "stores": Row("disks into the library and back", ["nbdcopy", "qemu-nbd"], stores, copies=5),
    "backup": Row("a full and an incremental backup", ["qemu-img", "qemu-io", "qemu-nbd"], backup),
}
