"""`make demo`: a real disk goes through Mover and back, a worker is killed on the way, and nothing is lost.

Then it is backed up, changed, backed up incrementally, and restored as it was at both times. Last, a guest writes to it
all the time, and a point of it becomes an image of the library, and that a new disk.

Every step is printed with its speed, beside nbdcopy's at the same task. The exit status is 0 only when every
comparison held.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.client import OK
from pathlib import Path
from subprocess import Popen

import msgspec

from mover.bench import clients, disk, report, tools
from mover.bench.data import GIB, MIB, workplace
from mover.bench.demo_backup import Backups
from mover.bench.demo_guest import GuestCopy
from mover.bench.errors import BenchError, ClientError, DifferenceError
from mover.bench.exports import NbdServer, qemu_nbd
from mover.bench.servers import HttpServer, Image, mover, request_over
from mover.cli.status import Status, complain
from mover.cli.terminable import terminable

TREE_BYTES = 768 * MIB
# At its peak: the disk, two raw copies of it and three uploads.
NEEDED_BYTES = 8 * GIB
# Slow enough that a worker can be killed in the middle: the disk then takes about five seconds.
KILL_RATE = "300M"
KILL_AFTER_BYTES = 100 * MIB
ZERO_BYTES = 64 * MIB
WORKERS_S = 20.0
POLL_S = 0.02
MEGABYTE = 1_000_000


class Worker(msgspec.Struct, frozen=True):
    """What the demo reads of one entry of `GET /workers`: None while the worker is being replaced or is busy."""

    export: str
    pid: int | None
    bytes_read: int | None
    bytes_written: int | None

    @property
    def moved_bytes(self) -> int:
        """Bytes read and written since the worker began."""
        return (self.bytes_read or 0) + (self.bytes_written or 0)


@dataclass
class Demo:
    """The disk that is moved, the servers it is moved by, and the table of what has been done."""

    directory: Path
    size_bytes: int
    exports: dict[str, NbdServer]
    http: HttpServer
    steps: list[list[str]] = field(default_factory=list)

    def file(self, name: str) -> Path:
        """Return the path of one of the demo's images."""
        return self.directory / name

    def step(self, name: str, seconds: float, moved_bytes: int, nbdcopy_s: float | None = None) -> None:
        """Print and keep one step; speeds are bytes of the disk per second, holes included."""
        speed, other = moved_bytes / MEGABYTE / seconds, "-"
        ratio = "-"
        if nbdcopy_s is not None:
            other, ratio = report.number(moved_bytes / MEGABYTE / nbdcopy_s), report.number(nbdcopy_s / seconds)
        self.steps.append([name, report.number(seconds), report.number(speed), other, ratio])
        say(f"{name}: {report.number(seconds)} s, {report.number(speed)} MB/s (nbdcopy: {other})")


def say(text: str) -> None:
    """Print one line at once, so that a reader sees it when it happens."""
    print(text, flush=True)


def main() -> int:
    """Run the demo and return the exit status."""
    try:
        with terminable():
            _run()
    except KeyboardInterrupt:
        return complain("demo: interrupted: what it had started is ended", Status.INTERRUPTED)
    except BenchError as error:
        return complain(f"demo: {error}", error.status)
    return Status.DONE


def _run() -> None:
    tools.require(["curl", "mkfs.ext4", "nbdcopy", "qemu-img", "qemu-nbd", "qemu-system-x86_64"])
    with workplace(NEEDED_BYTES) as directory:
        size_bytes = _make_disk(directory)
        with ExitStack() as stack:
            demo = _serve(stack, directory, size_bytes)
            _download(demo)
            extents = _list_extents(demo)
            _upload(demo)
            zeroed = _zero(demo, extents)
            _download_through_kill(demo)
            _upload_through_kill(demo)
        _compare(demo, *zeroed)
        _back_up(demo)
        _copy_guest(demo)
    say("")
    header = ["step", "seconds", "MB/s", "nbdcopy MB/s", "ratio"]
    say("\n".join(report.table([header, *demo.steps])))
    say("Every comparison held.")


def _make_disk(directory: Path) -> int:
    start = time.monotonic()
    size_bytes = disk.make_disk(directory / "source.qcow2", TREE_BYTES, directory)
    held = (directory / "source.qcow2").stat().st_size
    seconds = report.number(time.monotonic() - start)
    say(f"disk: ext4 with real files, {size_bytes // MIB} MiB, as a qcow2 of {held // MIB} MiB ({seconds} s)")
    return size_bytes


def _serve(stack: ExitStack, directory: Path, size_bytes: int) -> Demo:
    """Serve the disk, and empty ones for uploads, by a qemu-nbd each; and all but nbdcopy's by Mover."""
    source = qemu_nbd(directory, directory / "source.qcow2", "qcow2", read_only=True)
    exports = {"source": stack.enter_context(source)}
    for name in ("upload", "survivor", "nbdcopy"):
        empty = disk.make_empty(directory / f"{name}.qcow2", size_bytes)
        exports[name] = stack.enter_context(qemu_nbd(directory, empty, "qcow2"))
    images = [Image(name, exports[name], size_bytes) for name in ("source", "upload", "survivor")]
    http = stack.enter_context(mover(directory, images))
    say(f"serve: qemu-nbd -> mover serve -> {http.url('source')}")
    return Demo(directory, size_bytes, exports, http)


def _download(demo: Demo) -> None:
    """Download the disk: to nowhere, which shows Mover's speed, and to a file, which shows curl's and the memory's.

    Measured: `curl file:///… -o …`, without any server, wrote 350 MB/s into memory that the host had never touched.
    """
    source = demo.exports["source"].uri()
    nbdcopy_s, _ = clients.timed(clients.nbdcopy(source, "null:"))
    seconds, _ = clients.timed(clients.curl_to_null(demo.http.url("source")))
    demo.step("download, discarded", seconds, demo.size_bytes, nbdcopy_s)
    other = demo.file("nbdcopy.raw")
    # --allocated, because curl writes the zeros too.
    nbdcopy_s, _ = clients.timed(["nbdcopy", "--allocated", source, str(other)])
    other.unlink()
    seconds, _ = clients.timed(_curl_get(demo, "download.raw"))
    demo.step("download to a file", seconds, demo.size_bytes, nbdcopy_s)


def _curl_get(demo: Demo, name: str, *options: str) -> list[str]:
    return clients.curl(*options, "--output", str(demo.file(name)), demo.http.url("source"))


def _list_extents(demo: Demo) -> list[dict[str, int]]:
    """Print what the disk holds; DifferenceError unless its extents cover it without gaps."""
    seconds, output = clients.timed(clients.curl(f"{demo.http.url('source')}/extents"))
    extents: list[dict[str, int]] = json.loads(output)
    end = 0
    for extent in extents:
        if extent["start"] != end:
            raise DifferenceError(f"extents: one starts at {extent['start']}, the one before ends at {end}")
        end += extent["length"]
    if end != demo.size_bytes:
        raise DifferenceError(f"extents: they end at {end}, the disk at {demo.size_bytes}")
    zero = sum(extent["length"] for extent in extents if extent["zero"])
    data = demo.size_bytes - zero
    demo.steps.append(["extents", report.number(seconds), "-", "-", "-"])
    say(f"extents: {len(extents)} of them, {data // MIB} MiB data, {zero // MIB} MiB zero")
    return extents


def _upload(demo: Demo) -> None:
    # --flush, because a PUT flushes before it answers.
    command = ["nbdcopy", "--flush", str(demo.file("download.raw")), demo.exports["nbdcopy"].uri()]
    nbdcopy_s, _ = clients.timed(command)
    seconds, _ = clients.timed(_curl_put(demo, "upload"))
    demo.step("upload", seconds, demo.size_bytes, nbdcopy_s)


def _curl_put(demo: Demo, image: str, *options: str) -> list[str]:
    return clients.curl(*options, "--upload-file", str(demo.file("download.raw")), demo.http.url(image))


def _zero(demo: Demo, extents: Sequence[dict[str, int]]) -> tuple[int, int]:
    """Zero a range of the uploaded disk, in the middle of data; return its offset and length."""
    largest = max((extent for extent in extents if not extent["zero"]), key=lambda extent: extent["length"])
    # Not on a block's edge: the edges are the difficult part.
    offset, length = largest["start"] + 512, min(ZERO_BYTES, largest["length"] // 2)
    body = json.dumps({"op": "zero", "offset": offset, "size": length, "flush": True})
    json_body = ["--header", "Content-Type: application/json", "--data", body]
    seconds, _ = clients.timed(clients.curl("--request", "PATCH", *json_body, demo.http.url("upload")))
    demo.step(f"zero {length // MIB} MiB", seconds, length)
    return offset, length


def _download_through_kill(demo: Demo) -> None:
    command = _curl_get(demo, "survivor.raw", "--limit-rate", KILL_RATE)
    seconds = _through_kill(demo, "source", command)
    demo.step("download, worker killed", seconds, demo.size_bytes)


def _upload_through_kill(demo: Demo) -> None:
    command = _curl_put(demo, "survivor", "--limit-rate", KILL_RATE)
    seconds = _through_kill(demo, "survivor", command)
    demo.step("upload, worker killed", seconds, demo.size_bytes)


def _through_kill(demo: Demo, image: str, command: list[str]) -> float:
    """Run a transfer, kill the image's worker with -9 in the middle of it; return the transfer's seconds."""
    start = time.perf_counter()
    before = _worker(demo, image)
    with clients.started(command) as client:
        killed = _await(client, command, lambda: busy(_worker(demo, image), before))
        os.kill(killed, signal.SIGKILL)
        successor = _await(client, command, lambda: other_than(_worker(demo, image), killed))
        say(f"kill -9 {killed}, the worker of {image!r}, in mid-transfer; {successor} takes over")
        client.wait()
    return time.perf_counter() - start


def busy(worker: Worker | None, before: Worker | None) -> int | None:
    """Return the worker's pid once it has moved enough since `before`."""
    if worker is None:
        return None
    moved_earlier = before.moved_bytes if before and before.pid == worker.pid else 0
    return worker.pid if worker.moved_bytes - moved_earlier >= KILL_AFTER_BYTES else None


def other_than(worker: Worker | None, killed: int) -> int | None:
    """Return the worker's pid once it is another one."""
    return worker.pid if worker and worker.pid != killed else None


def _worker(demo: Demo, image: str) -> Worker | None:
    """Return what Mover says of the image's worker, None while there is none."""
    assert demo.http.unix_socket is not None
    status, body = request_over(demo.http.unix_socket, "GET", "/workers")
    if status != OK:
        raise ClientError(["GET", "/workers"], f"{status}: {body.decode(errors='replace')}")
    socket = str(demo.exports[image].socket)
    workers = msgspec.json.decode(body, type=list[Worker])
    return next((worker for worker in workers if socket in worker.export), None)


def _await(client: Popen[bytes], command: Sequence[str], answer: Callable[[], int | None]) -> int:
    """Ask until there is an answer, while the client is at work."""
    deadline = time.monotonic() + WORKERS_S
    while (found := answer()) is None:
        if client.poll() is not None:
            raise ClientError(command, f"status {client.returncode}, before a worker was killed and replaced in it")
        if time.monotonic() > deadline:
            raise ClientError(command, f"no worker was killed and replaced in {WORKERS_S:g} s of it")
        time.sleep(POLL_S)
    return found


def _compare(demo: Demo, zero_offset: int, zero_length: int) -> None:
    """Compare everything that was moved with where it came from. The servers have ended: nothing is in memory only."""
    source, download = demo.file("source.qcow2"), demo.file("download.raw")
    for copy in (download, demo.file("survivor.raw"), demo.file("survivor.qcow2")):
        disk.compare(source, copy)
        say(f"compare: {copy.name} is {source.name}")
    disk.zero_range(download, zero_offset, zero_length)
    disk.compare(download, demo.file("upload.qcow2"))
    say(f"compare: upload.qcow2 is {source.name} with the range zeroed")


def _back_up(demo: Demo) -> None:
    """The second part, with the disk and a copy of it; what the first part made otherwise goes."""
    for name in ("upload.qcow2", "survivor.qcow2", "nbdcopy.qcow2", "download.raw"):
        demo.file(name).unlink()
    Backups(
        demo.file("source.qcow2"), demo.file("survivor.raw"), demo.directory, demo.size_bytes, demo.step, say
    ).show()


def _copy_guest(demo: Demo) -> None:
    """The third part, with the disk alone; what the others made goes."""
    for file in demo.directory.iterdir():
        if file.name != "source.qcow2":
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    GuestCopy(demo.file("source.qcow2"), demo.directory, demo.size_bytes, demo.step, say).show()


if __name__ == "__main__":
    sys.exit(main())
