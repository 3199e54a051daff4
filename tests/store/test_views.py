"""The disk in a library image, seen through a confined qemu-nbd: the same disk, whatever dies, and nothing but it."""

from __future__ import annotations

import gc
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from config.export import Export
from tests.harness.waiting import PROGRAM_S, wait_until
from tests.image.process import SETTINGS, Process, working
from workers.image.loop import Loop
from workers.lane.extents_format import ZERO, unpack
from workers.lane.lane_states import LaneLost
from workers.lane.protocol import Kind
from workers.store.inspection.headers import Format, Header
from workers.store.inspection.qemu_img import CONFINE
from workers.store.views import server as view_server
from workers.store.views.server import ViewServer

MIB = 1024 * 1024
QEMU_NAMES = {"qcow2": "qcow2", "vmdk": "vmdk", "vdi": "vdi", "vhd": "vpc", "vhdx": "vhdx"}
DISK = random.Random(7).randbytes(2 * MIB) + bytes(6 * MIB) + random.Random(8).randbytes(MIB) + bytes(MIB)

Convert = Callable[..., Path]


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    """DISK as an image of this format."""
    raw = tmp_path / "disk.raw"
    raw.write_bytes(DISK)

    def made(disk_format: str, *options: str) -> Path:
        path = tmp_path / disk_format
        sized = ["-o", "force_size=on"] if disk_format == "vhd" else []
        command = ["qemu-img", "convert", "-O", QEMU_NAMES[disk_format], *sized, *options, str(raw), str(path)]
        subprocess.run(command, check=True)
        return path

    return made


def view(path: Path, disk_format: str) -> Export:
    return Export("view", path=str(path), name=disk_format)


async def whole(process: Process) -> bytes:
    return b"".join([await process.read(at, MIB) for at in range(0, len(DISK), MIB)])


async def zeros(process: Process) -> list[tuple[int, int]]:
    """Where the view says that zeros are: offset and length, neighbours merged."""
    completion, slot = await process.filled(Kind.EXTENTS, 0, len(DISK))
    found: list[tuple[int, int]] = []
    at = 0
    for length, flags in unpack(memoryview(slot)[: completion.value]):
        if flags & ZERO and found and sum(found[-1]) == at:
            found[-1] = (found[-1][0], found[-1][1] + length)
        elif flags & ZERO:
            found.append((at, length))
        at += length
    assert at == len(DISK)
    return found


def mapped_zeros(image: Path, disk_format: str) -> list[tuple[int, int]]:
    """The same as qemu-img has it."""
    command = ["qemu-img", "map", "--output=json", "-f", QEMU_NAMES[disk_format], str(image)]
    found: list[tuple[int, int]] = []
    for one in json.loads(subprocess.run(command, check=True, capture_output=True).stdout):
        if one["zero"] and found and sum(found[-1]) == one["start"]:
            found[-1] = (found[-1][0], found[-1][1] + one["length"])
        elif one["zero"]:
            found.append((one["start"], one["length"]))
    return found


def servers(pid: int) -> list[psutil.Process]:
    return [one for one in psutil.Process(pid).children() if one.name() == "qemu-nbd"]


@pytest.mark.parametrize("disk_format", QEMU_NAMES)
async def test_a_view_has_the_disks_bytes_and_extents(loop: object, convert: Convert, disk_format: str) -> None:
    image = convert(disk_format)
    async with working(view(image, disk_format), roots=None) as process:
        assert await whole(process) == DISK
        assert await zeros(process) == mapped_zeros(image, disk_format)
        facts = await process.lane.opened()
        assert (facts.size_bytes, facts.read_only, facts.multi_conn) == (len(DISK), True, True)


async def test_reads_go_on_when_the_server_is_killed_and_end_with_the_worker(loop: object, convert: Convert) -> None:
    image = convert("qcow2", "-c")
    async with working(view(image, "qcow2"), roots=None) as process:
        [first] = servers(process.pid)
        first.kill()
        assert await whole(process) == DISK
        [second] = servers(process.pid)
        assert second.pid != first.pid
        process.kill()
        wait_until("the worker's server ends with it", lambda: not second.is_running())
        process.start()
        assert await whole(process) == DISK
        [third] = servers(process.pid)
    wait_until("nothing is left", lambda: not third.is_running())


async def test_the_reader_is_told_what_a_server_said_that_does_not_serve(
    loop: object, convert: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = tmp_path / "bin" / "qemu-nbd"
    ends.parent.mkdir()
    ends.write_text("#!/bin/sh\necho qemu-nbd: no more of it >&2\n")
    ends.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ends.parent}:{os.environ['PATH']}")
    process = Process(view(convert("qcow2"), "qcow2"), SETTINGS)
    process.start()
    try:
        with pytest.raises(LaneLost, match="no more of it"):
            await process.lane.opened()
    finally:
        process.close()


# -- hostile images ----------------------------------------------------------------------------------------------------


async def refusal(image: Path, disk_format: str) -> str:
    """What a client is told of it."""
    with pytest.raises(LaneLost) as refused:
        async with working(view(image, disk_format), roots=None):
            pass
    return refused.value.reason


async def test_an_image_that_names_another_file_or_is_something_else_is_refused(
    loop: object, convert: Convert, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 100_000)
    qemu_img = ("qemu-img", "create", "-q", "-f", "qcow2")
    backed, outside = tmp_path / "backed", tmp_path / "outside"
    subprocess.run([*qemu_img, "-b", str(secret), "-F", "raw", str(backed)], check=True)
    subprocess.run([*qemu_img, "-o", f"data_file={secret}.data,data_file_raw=on", str(outside), "1M"], check=True)
    assert "names a backing file" in await refusal(backed, "qcow2")
    assert "names an external data file" in await refusal(outside, "qcow2")
    assert "is raw, not qcow2" in await refusal(secret, "qcow2")
    assert "is qcow2, not vmdk" in await refusal(convert("qcow2"), "vmdk")
    link = tmp_path / "link"
    link.symlink_to(convert("qcow2"))
    assert "cannot connect" in await refusal(link, "qcow2")


def socket_path(server: ViewServer) -> str:
    return f"/proc/{os.getpid()}{server.address().removeprefix('/proc/self')}"


@pytest.fixture
def unread_headers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], ViewServer]]:
    """Servers of images whose headers nobody has read: as if one had been changed after that."""
    monkeypatch.setattr(view_server, "look_as", lambda read, size, disk_format: Header(Format.QCOW2))
    made: list[ViewServer] = []

    def serve(image: Path) -> ViewServer:
        made.append(ViewServer(view(image, "qcow2"), Loop()))
        return made[-1]

    yield serve
    for server in made:
        server.end(wanted=True)
    made.clear()
    gc.collect()  # their loops have descriptors


def test_a_backing_file_is_not_opened_even_if_nobody_has_seen_that_it_is_named(
    tmp_path: Path, unread_headers: Callable[[Path], ViewServer]
) -> None:
    secret, image, copy = tmp_path / "secret", tmp_path / "image", tmp_path / "copy"
    secret.write_bytes(b"secret" * 100_000)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", image], check=True)
    path = socket_path(unread_headers(image))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "raw", f"nbd+unix:///?socket={path}", copy], check=True)
    assert copy.stat().st_size >= secret.stat().st_size
    assert not any(copy.read_bytes())


def test_a_data_file_cannot_be_opened_even_if_nobody_has_seen_that_it_is_named(
    tmp_path: Path, unread_headers: Callable[[Path], ViewServer]
) -> None:
    """By the kernel: qemu-nbd tries."""
    image, secret = tmp_path / "image", tmp_path / "secret"
    options = f"data_file={secret},data_file_raw=on"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, image, "1M"], check=True)
    secret.write_bytes(b"secret" * 100_000)
    server = unread_headers(image)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(server.address())
        select.select([client], [], [], 20)
    said = server.end(wanted=True)
    assert said is not None
    assert "Permission denied" in said


def test_an_image_that_ends_its_server_again_and_again_is_given_up(
    convert: Convert, unread_headers: Callable[[Path], ViewServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time it could be connected to: without a limit, that would go on for ever."""
    monkeypatch.setattr(view_server, "ENDS_MOST", 2)
    server = unread_headers(convert("qcow2"))
    for wanted in (True, False, True, False):
        assert server.address()
        server.end(wanted)
    with pytest.raises(OSError, match="has ended 2 times within 60 s"):
        server.address()


def serve_confined(image: str, program: str) -> subprocess.CompletedProcess[str]:
    """A server in Python."""
    fd = os.open(image, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as listening:
        fds = [fd, listening.fileno()]
        command = [sys.executable, "-I", "-S", CONFINE, "--serve", *map(str, fds), sys.executable, "-I", "-S", "-c"]
        done = subprocess.run(
            [*command, program], env={}, pass_fds=fds, capture_output=True, text=True, timeout=PROGRAM_S
        )
    os.close(fd)
    return done


def test_a_confined_server_has_its_image_its_socket_and_nothing_else(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_text("mine")
    seen = serve_confined(
        str(image),
        "import os, select; p = select.poll(); [p.register(fd, 0) for fd in range(250)];"
        "print([fd for fd in range(250) if (fd, select.POLLNVAL) not in p.poll(0)]);"
        "print(os.environ['LISTEN_FDS'], os.environ['LISTEN_PID'] == str(os.getpid()))",
    )
    assert seen.stdout == "[0, 1, 2, 3, 10]\n1 True\n", seen.stderr
    read = serve_confined(str(image), "print(open('/proc/self/fd/10').read())")
    assert read.stdout == "mine\n", read.stderr
    assert "PermissionError" in serve_confined(str(image), "open('/etc/passwd')").stderr


def test_a_server_that_spins_on_an_image_ends_with_who_started_it(tmp_path: Path) -> None:
    """Killed by the kernel when its parent is: nobody else would."""
    image = tmp_path / "image"
    image.write_text("x")
    script = textwrap.dedent(
        """
        import socket, subprocess, sys
        s, f = socket.socket(socket.AF_UNIX), open(sys.argv[2])
        fds = [f.fileno(), s.fileno()]
        python = [sys.executable, "-I", "-S"]
        spin = [*python, "-c", "print(0, flush=True)\\nwhile True: pass"]
        p = subprocess.Popen([*python, sys.argv[1], "--serve", *map(str, fds), *spin], pass_fds=fds)
        print(p.pid, flush=True)
        p.wait()
        """
    )
    parent = subprocess.Popen([sys.executable, "-c", script, CONFINE, str(image)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout as said:
        pid = max(int(said.readline()), int(said.readline()))
        parent.send_signal(signal.SIGKILL)
        parent.wait()

    def gone() -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    wait_until("it is gone", gone)
