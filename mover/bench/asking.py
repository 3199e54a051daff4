"""Rows about what is asked of an image as a whole: its dirty extents, its checksum, and what others notice of it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from mover.bench import clients, tools
from mover.bench.contest import Contender, Contest
from mover.bench.data import KIB
from mover.bench.errors import ClientError
from mover.bench.exports import qemu_nbd
from mover.bench.row import Bench
from mover.bench.servers import HttpServer, Image

# Half of them dirty.
FEW, MANY = 262_144, 1_048_576
RUN_BYTES = 64 * KIB
BITMAP = "since"
LINES = "application/x-ndjson"


def extents(bench: Bench) -> list[Contest]:
    """The dirty extents of a qcow2 image whose bitmap is in many runs, as an array and as lines."""
    disks = []
    for count in (FEW, MANY):
        image = bench.directory / f"runs-{count}.qcow2"
        make_runs(image, count)
        server = bench.enter(qemu_nbd(bench.directory, image, "qcow2", read_only=True, bitmap=BITMAP))
        disks.append(Image(str(count), server, count * RUN_BYTES, bitmap=BITMAP))
    https = bench.http_servers(disks)
    mover = https[0]

    def array(http: HttpServer, part: int, unit: float) -> Contender:
        return Contender(http.name, "curl HTTP/extents?context=dirty", lambda: unit * _listed(http, FEW)[part])

    def lines(count: int) -> Contender:
        command = f"curl --header 'Accept: {LINES}' HTTP/extents?context=dirty"
        return Contender(f"mover on {count}", command, lambda: _listed(mover, count, LINES)[1])

    def memory(count: int) -> Contender:
        command = [*clients.curl_to_null(_dirty(mover, count)), "--header", f"Accept: {LINES}"]
        return Contender(
            f"mover on {count}", "front end + worker", partial(clients.peak_memory, command, mover.data_processes)
        )

    return [
        Contest(f"{FEW} runs, first byte", "ms", [array(http, 0, 1000) for http in https]),
        Contest(f"{FEW} runs, whole", "s", [array(http, 1, 1) for http in https]),
        Contest("lines", "s", [lines(count) for count in (FEW, MANY)]),
        Contest("lines, memory", "MiB", [memory(count) for count in (FEW, MANY)]),
        _others_notice(bench, mover, str(FEW), clients.curl_to_null(_dirty(mover, FEW)), FEW * RUN_BYTES, "extents"),
    ]


def _dirty(http: HttpServer, count: int) -> str:
    return f"{http.url(str(count))}/extents?context=dirty"


def _listed(http: HttpServer, count: int, accept: str = "*/*") -> tuple[float, float]:
    return clients.curl_answer(_dirty(http, count), accept)


def checksum(bench: Bench) -> list[Contest]:
    """The checksum of a whole image, with the defaults of both servers."""
    export = bench.enter(qemu_nbd(bench.directory, bench.data, read_only=True))
    https = bench.http_servers([Image("disk", export, bench.size_bytes)])
    contenders = [
        Contender(http.name, "curl HTTP/checksum", partial(_last, f"{http.url('disk')}/checksum")) for http in https
    ]
    asking = clients.curl_to_null(f"{https[0].url('disk')}/checksum")
    notice = _others_notice(bench, https[0], "disk", asking, bench.size_bytes, "checksum")
    return [Contest("whole", "s", contenders), notice]


def _last(url: str) -> float:
    return clients.curl_answer(url)[1]


def _others_notice(bench: Bench, http: HttpServer, image: str, asking: list[str], size: int, what: str) -> Contest:
    """What 4 KiB GETs of the same image take, alone and while it is asked again and again."""
    alone = partial(clients.wrk_slowest, http.url(image), 1, size, bench.directory)

    def beside() -> float:
        with clients.meanwhile(asking):
            return alone()

    command = "wrk --threads=1 --connections=1 --latency"
    contenders = [Contender("mover idle", command, alone), Contender(f"mover beside {what}", command, beside)]
    return Contest("4 KiB GETs, 99th percentile", "ms", contenders)


def make_runs(image: Path, count: int) -> None:
    """Make a qcow2 image of `count` runs of 64 KiB, every other one dirty; all read as zeros, so it stays small."""
    _run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), str(count * RUN_BYTES)])
    _run(["qemu-img", "bitmap", "--add", "-f", "qcow2", str(image), BITMAP])
    writes = (f"write -q -z -u {at} {RUN_BYTES}\n" for at in range(0, count * RUN_BYTES, 2 * RUN_BYTES))
    _run(["qemu-io", "-t", "unsafe", "-f", "qcow2", str(image)], writes)


def _run(command: list[str], lines: Iterator[str] | None = None) -> None:
    """Run a tool to its end. It reads `lines`, and says nothing unless something is wrong."""
    done = subprocess.run(
        [tools.path(command[0]), *command[1:]], input="".join(lines or ""), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ClientError(command, f"status {done.returncode}: {done.stderr.strip()}")
