"""The clients that meet the servers: curl, nbdcopy, wrk as child processes, and a Python one for the first byte."""

from __future__ import annotations

import contextlib
import http.client
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from tempfile import TemporaryFile
from urllib.parse import urlsplit

import psutil

from mover.bench import tools
from mover.bench.data import MIB
from mover.bench.errors import ClientError
from mover.bench.servers import HttpServer

FIRST_BYTE_S = 30.0
# Reading a process's memory map costs milliseconds of its time; more often would slow what is measured.
SAMPLE_S = 0.02
WRK_S = 2

# 4 KiB ranges at random; the generator's fixed seed gives every contender the same ones.
WRK_SCRIPT = """\
math.randomseed(1)
request = function()
   local start = math.random(0, {blocks} - 1) * 4096
   return wrk.format("GET", nil, {{["Range"] = "bytes=" .. start .. "-" .. (start + 4095)}})
end
"""


def curl(*arguments: str) -> list[str]:
    """Return a curl command that no ~/.curlrc and no proxy changes, and that fails where the server refuses."""
    return ["curl", "--disable", "--noproxy", "*", "--silent", "--show-error", "--fail", *arguments]


def curl_to_null(url: str, *options: str) -> list[str]:
    """Return a curl command that downloads `url` and discards it."""
    return curl(*options, "--output", "/dev/null", url)


def curl_get(url: str, size_bytes: int, *options: str) -> float:
    """Download `url`, discard it, and return the seconds it took; ClientError unless it was `size_bytes` long."""
    command = [*curl_to_null(url, *options), "--write-out", "%{size_download}"]
    seconds, output = timed(command)
    _check_moved(command, int(output), size_bytes)
    return seconds


def curl_get_range(url: str, offset: int, length: int) -> float:
    """Download a range of `url`, discard it, and return the seconds that curl counted, its own start left out."""
    command = [*curl_to_null(url), "--range", f"{offset}-{offset + length - 1}"]
    command += ["--write-out", "%{size_download} %{time_total}"]
    moved, seconds = timed(command)[1].split()
    _check_moved(command, int(moved), length)
    return float(seconds)


def curl_put(url: str, file: Path, *options: str) -> float:
    """Upload `file` to `url` and return the seconds it took."""
    upload = ["--write-out", "%{size_upload}", "--upload-file", str(file)]
    command = [*curl_to_null(url, *options), *upload]
    seconds, output = timed(command)
    _check_moved(command, int(output), file.stat().st_size)
    return seconds


def curl_answer(url: str, accept: str = "*/*") -> tuple[float, float]:
    """Fetch an answer of unknown length and discard it; the seconds to its first byte, and to its last."""
    command = [*curl_to_null(url), "--header", f"Accept: {accept}"]
    first, last = timed([*command, "--write-out", "%{time_starttransfer} %{time_total}"])[1].split()
    return float(first), float(last)


def _check_moved(command: Sequence[str], moved: int, size_bytes: int) -> None:
    if moved != size_bytes:
        raise ClientError(command, f"it moved {moved} bytes of {size_bytes}")


def nbdcopy(source: str, target: str) -> list[str]:
    """Return an nbdcopy command with its defaults: 4 connections where the server allows, 64 requests each."""
    return ["nbdcopy", source, target]


def timed(command: Sequence[str]) -> tuple[float, str]:
    """Run `command` to its end; return its wall-clock seconds, start of the process included, and its output."""
    start = time.perf_counter()
    with started(command) as process:
        output, _ = process.communicate()
        return time.perf_counter() - start, output.decode()


def timed_together(commands: Sequence[Sequence[str]]) -> float:
    """Run all of `commands` at once; return the seconds from the first start to the last end."""
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        for process in [stack.enter_context(started(command)) for command in commands]:
            process.wait()
        return time.perf_counter() - start


@contextlib.contextmanager
def started(command: Sequence[str]) -> Iterator[Popen[bytes]]:
    """Start `command`, its output in a pipe; wait for it at the end of the block, kill it where the block failed.

    ClientError, with what it printed, if its status is not 0.
    """
    with TemporaryFile() as errors:
        with Popen([tools.path(command[0]), *command[1:]], stdin=DEVNULL, stdout=PIPE, stderr=errors) as process:
            try:
                yield process
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            errors.seek(0)
            raise ClientError(command, f"status {process.returncode}: {errors.read().decode().strip()}")


def wrk(url: str, connections: int, size_bytes: int, directory: Path) -> float:
    """Return the 4 KiB ranged GETs a second that `url` answers over so many keep-alive connections."""
    return float(_wrk(url, connections, size_bytes, directory, r"Requests/sec:\s+([\d.]+)")[1])


def wrk_slowest(url: str, connections: int, size_bytes: int, directory: Path) -> float:
    """Return the milliseconds that 99 of 100 such GETs take at most."""
    found = _wrk(url, connections, size_bytes, directory, r"99%\s+([\d.]+)(us|ms|s)\b")
    return float(found[1]) * {"us": 0.001, "ms": 1, "s": 1000}[found[2]]


def _wrk(url: str, connections: int, size_bytes: int, directory: Path, pattern: str) -> re.Match[str]:
    script = directory / "ranges.lua"
    script.write_text(WRK_SCRIPT.format(blocks=size_bytes // 4096))
    command = ["wrk", "--threads=1", f"--connections={connections}", f"--duration={WRK_S}s", "--latency"]
    command += [f"--script={script}", url]
    output = timed(command)[1]
    found = re.search(pattern, output)
    if found is None or "Non-2xx" in output or "Socket errors" in output:
        raise ClientError(command, output.strip())
    return found


@contextlib.contextmanager
def meanwhile(command: Sequence[str]) -> Iterator[None]:
    """Run `command` again and again for the time of the block; ClientError if it failed once."""
    over = threading.Event()
    errors: list[ClientError] = []

    def repeat() -> None:
        while not over.is_set() and not errors:
            try:
                timed(command)
            except ClientError as error:
                errors.append(error)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if errors:
        raise errors[0]


def first_byte(server: HttpServer, image_id: str, *, connected: bool) -> float:
    """Return the seconds from a GET to the first byte of its body.

    `connected`: over a connection that has already carried a request; otherwise the connect is counted too.
    """
    address = urlsplit(server.base_url)
    target = f"/images/{image_id}"
    with contextlib.closing(http.client.HTTPConnection(address.netloc, timeout=FIRST_BYTE_S)) as connection:
        if connected:
            connection.request("OPTIONS", "/images/*")
            connection.getresponse().read()
        start = time.perf_counter()
        connection.request("GET", target)
        answer = connection.getresponse()
        byte = answer.read(1)
        seconds = time.perf_counter() - start
        if answer.status != http.client.OK or not byte:
            raise ClientError(["GET", server.url(image_id)], f"{answer.status} {answer.reason}")
        while answer.read(MIB):
            pass
        return seconds


def first_byte_of(command: Sequence[str]) -> float:
    """Return the seconds from the start of `command` to the first byte it prints; it is then read to its end."""
    start = time.perf_counter()
    with started(command) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        seconds = time.perf_counter() - start
        while process.stdout.read(MIB):
            pass
        return seconds


def peak_memory(command: Sequence[str], others: Callable[[], list[psutil.Process]] | None = None) -> float:
    """Run `command`; return the most unshared memory in MiB that it, or else `others()`, had together meanwhile."""
    with started(command) as process:
        watched = others() if others else [psutil.Process(process.pid)]
        peak = 0
        while process.poll() is None:
            peak = max(peak, sum(_unshared(each) for each in watched))
            time.sleep(SAMPLE_S)
    return peak / MIB


def _unshared(process: psutil.Process) -> int:
    """Return the process's resident bytes that it shares with no other, 0 if it has just gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return int(process.memory_full_info().uss)
    return 0
