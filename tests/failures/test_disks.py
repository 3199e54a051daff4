"""Real disks: a file system that is full, and a block device; what is on them is compared with what was answered."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.control.agent import Agent
from tests.harness.fixtures import StartMover
from tests.harness.mover import Mover
from tests.harness.patterns import MIB, difference, pattern
from tests.harness.waiting import wait_until

SMALL_BYTES = 8 * MIB
IMAGE_BYTES = 16 * MIB


def run(*command: str | Path) -> str:
    """Run a tool to its end; a skip where it may not do what it is asked here."""
    path = shutil.which(command[0], path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if path is None or os.geteuid() != 0:
        pytest.skip(f"{command[0]} is missing, or this is not root")
    done = subprocess.run([path, *command[1:]], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout.strip()


@pytest.fixture(params=["tmpfs", "ext4"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path, room: Path, endings: ExitStack) -> Path:
    """A file system of 8 MiB."""
    place = room / "small"
    place.mkdir()
    if request.param == "tmpfs":
        run("mount", "-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "tmpfs", place)
    else:
        device = tmp_path / "device"
        device.touch()
        os.truncate(device, SMALL_BYTES)
        run("mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", device)
        run("mount", "-o", "loop", device, place)
    endings.callback(run, "umount", "--lazy", place)
    return place


@pytest.fixture
def device(tmp_path: Path, endings: ExitStack) -> Path:
    """A block device of 16 MiB."""
    behind = tmp_path / "behind"
    behind.write_bytes(pattern(1, 0, IMAGE_BYTES))
    found = Path(run("losetup", "--show", "--find", behind))
    endings.callback(run, "losetup", "--detach", found)
    return found


@pytest.fixture
def serve(room: Path, start_mover: StartMover) -> Callable[[Path], tuple[Mover, Agent]]:
    """Starts a Mover with the file as the raw image `raw` and, by CloudStack's agent, as the whole file `whole`."""

    def start(file: Path) -> tuple[Mover, Agent]:
        mover = start_mover({"raw": f"file://{file}"}, {"serve": {"control_socket": str(room / "control")}})
        agent = Agent(room / "control")
        config = {"backend": "file", "file": str(file)}
        assert agent.ask("register", transfer_id="whole", config=config)["status"] == "ok"
        return mover, agent

    return start


def fill(place: Path) -> Path:
    """Leave no room on a file system."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    return filler


def test_a_raw_file_on_a_full_disk_says_so_and_can_be_written_when_there_is_room(
    small_disk: Path, serve: Callable[[Path], tuple[Mover, Agent]]
) -> None:
    """The write and the zeroing that find no room are a 500 with the reason; the rest of the image is as it was."""
    file, half = small_disk / "disk.raw", 2 * MIB
    file.write_bytes(pattern(1, 0, half))
    os.truncate(file, 2 * half)
    mover, _ = serve(file)
    filler = fill(small_disk)
    for answer in (
        mover.ask("PUT", "/images/raw", pattern(2, half, half), Content_Range=f"bytes {half}-{2 * half - 1}/*"),
        mover.ask("PATCH", "/images/raw", f'{{"op":"zero","offset":{half},"size":{half}}}'.encode()),
    ):
        assert answer.status == 500
        assert "No space left on device" in answer.json()["error"]
    found = mover.ask("GET", "/images/raw").body
    assert difference(found[:half], pattern(1, 0, half)) is None
    assert mover.ask("PUT", "/images/raw", pattern(3, 0, half)).json()["flushed"] is True
    filler.unlink()
    body = pattern(4, half, half)
    answer = mover.ask("PUT", "/images/raw", body, Content_Range=f"bytes {half}-{2 * half - 1}/*")
    assert answer.json() == {"ok": True, "bytes_written": half, "flushed": True}
    assert difference(file.read_bytes(), pattern(3, 0, half) + body) is None
    mover.stop_clean()


def test_a_whole_file_on_a_full_disk_stays_the_old_one_and_leaves_nothing(
    small_disk: Path, serve: Callable[[Path], tuple[Mover, Agent]]
) -> None:
    """PUT is a 500 with the reason, every time; then, with room, the file is replaced."""
    file, old = small_disk / "disk.qcow2", pattern(1, 0, MIB)
    file.write_bytes(old)
    mover, agent = serve(file)
    before = sorted(path.name for path in small_disk.iterdir())
    filler = fill(small_disk)
    for length in (MIB, 4 * MIB):
        answer = mover.ask("PUT", "/images/whole", pattern(2, 0, length))
        assert answer.status == 500
        assert "No space left on device" in answer.json()["error"]
        assert mover.ask("GET", "/images/whole").body == old
    filler.unlink()
    wait_until("nothing is left", lambda: sorted(path.name for path in small_disk.iterdir()) == before)
    assert mover.ask("PUT", "/images/whole", pattern(3, 0, 4 * MIB)).status == 200
    assert difference(file.read_bytes(), pattern(3, 0, 4 * MIB)) is None
    assert sorted(path.name for path in small_disk.iterdir()) == before
    assert agent.unregister("whole")["status"] == "ok"
    mover.stop_clean()


def test_a_block_device_is_an_image(device: Path, serve: Callable[[Path], tuple[Mover, Agent]]) -> None:
    """Size, GET, PUT, zero, extents, checksum and flush of a real one, and every byte of it at the end."""
    mover, _ = serve(device)
    expected = bytearray(pattern(1, 0, IMAGE_BYTES))
    assert mover.ask("HEAD", "/images/raw").headers["content-length"] == str(IMAGE_BYTES)
    assert difference(mover.ask("GET", "/images/raw").body, expected) is None
    for offset, length in ((0, 4096), (5 * MIB + 1, 3 * MIB + 7), (IMAGE_BYTES - 513, 513)):
        body = pattern(2, offset, length)
        span = f"bytes {offset}-{offset + length - 1}/*"
        assert mover.ask("PUT", "/images/raw?flush=n", body, Content_Range=span).status == 200
        expected[offset : offset + length] = body
    for offset, size in ((MIB, 2 * MIB), (9 * MIB + 3, 1000)):
        zero = f'{{"op":"zero","offset":{offset},"size":{size}}}'.encode()
        assert mover.ask("PATCH", "/images/raw", zero).status == 200
        expected[offset : offset + size] = bytes(size)
    beyond = mover.ask("PUT", "/images/raw", b"x", Content_Range=f"bytes {IMAGE_BYTES}-{IMAGE_BYTES}/*")
    assert beyond.status == 416
    assert mover.ask("POST", "/images/raw/flush").json()["flushed"] is True
    assert difference(mover.ask("GET", "/images/raw").body, expected) is None
    extents = mover.ask("GET", "/images/raw/extents").json()
    assert extents == [{"start": 0, "length": IMAGE_BYTES, "zero": False, "hole": False}]
    assert difference(device.read_bytes(), expected) is None
    mover.stop_clean()


def test_a_whole_file_that_is_a_block_device_is_written_in_place(
    device: Path, serve: Callable[[Path], tuple[Mover, Agent]]
) -> None:
    """Nothing can take a device's place: a PUT is its first bytes, durable, and one that is too long is refused."""
    mover, _ = serve(device)
    body = pattern(2, 0, 4 * MIB)
    assert mover.ask("PUT", "/images/whole", body).status == 200
    assert difference(device.read_bytes(), body + pattern(1, 4 * MIB, IMAGE_BYTES - 4 * MIB)) is None
    answer = mover.ask("PUT", "/images/whole", bytes(IMAGE_BYTES + 1))
    assert (answer.status, "No space left on device" in answer.json()["error"]) == (500, True)
    assert difference(mover.ask("GET", "/images/whole").body, device.read_bytes()) is None
    mover.stop_clean()
