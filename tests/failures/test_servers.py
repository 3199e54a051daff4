"""NBD servers that fail, lag, refuse and lack things (nbdkit's filters): errors are told, and nothing is guessed."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.harness.fixtures import Images, StartMover
from tests.harness.http import Answer, connect, head
from tests.harness.mover import Mover
from tests.harness.patterns import MIB, assert_same_file, difference, mapped, pattern
from tests.harness.servers import NbdServer
from tests.harness.transfers import BrokenOff, Doing, download, upload
from tests.harness.waiting import wait_until

pytestmark = pytest.mark.nbd

SIZE = 32 * MIB
DATA = bytes(range(256)) * 16


class Faulty:
    """An image behind nbdkit's error filter: `operation` fails while `trouble` is there."""

    def __init__(self, images: Images, operation: str, error: str = "EIO") -> None:
        self.file = images.pattern("disk", 1, SIZE)
        self._trigger = images.room / "trouble"
        words = (
            f"error-{operation}={error}",
            f"error-{operation}-rate=100%",
            f"error-{operation}-file={self._trigger}",
        )
        self.server = images.nbdkit("faulty", "file", str(self.file), *words, filters=["error"])

    def begin(self) -> None:
        """From here on it fails."""
        self._trigger.touch()

    def end(self) -> None:
        """It works again."""
        self._trigger.unlink()


def failed(answer: Answer, *told: str) -> None:
    """It is a 500 whose message tells these facts."""
    assert answer.status == 500, answer
    assert [fact for fact in told if fact not in answer.json()["error"]] == [], answer


@pytest.mark.parametrize("span", ["bytes=4096-8191", "bytes=0-33554431"], ids=["small", "whole"])
def test_a_read_that_fails_before_the_headers_is_a_500(span: str, images: Images, start_mover: StartMover) -> None:
    """The client is told what was read and why it failed; on the same connection the next request is answered."""
    disk = Faulty(images, "pread")
    mover = start_mover({"disk": disk.server})
    assert mover.ask("GET", "/images/disk", Range="bytes=0-9").status == 206
    before = mover.settled_census()
    disk.begin()
    with mover.client() as client:
        failed(client.ask("GET", "/images/disk", range=span), "read", "Input/output error")
        disk.end()
        assert client.ask("GET", "/images/disk", range="bytes=0-4095").body == pattern(1, 0, 4096)
    mover.assert_returns_to(before)
    mover.stop_clean()


def test_a_read_that_fails_after_the_headers_breaks_the_connection(images: Images, start_mover: StartMover) -> None:
    """Half a body is never taken for a whole one, and what came of it was right."""
    disk = Faulty(images, "pread")
    mover = start_mover({"disk": disk.server})
    assert mover.ask("GET", "/images/disk", Range="bytes=0-9").status == 206
    before = mover.settled_census()
    with mapped(disk.file) as expected:
        with pytest.raises(BrokenOff):
            download(mover.tcp, "/images/disk", expected, {SIZE // 4: disk.begin})
        disk.end()
        download(mover.tcp, "/images/disk", expected)
    mover.assert_returns_to(before)
    mover.stop_clean()


@pytest.mark.parametrize(("error", "why"), [("EIO", "Input/output error"), ("ENOSPC", "No space left on device")])
def test_a_write_that_fails_is_told(error: str, why: str, images: Images, start_mover: StartMover) -> None:
    """The answer is a 500 that says why, also in the middle of a body; sent again, it is written."""
    source, disk = images.pattern("source", 2, SIZE), Faulty(images, "pwrite", error)
    mover = start_mover({"disk": disk.server})
    assert mover.ask("GET", "/images/disk", Range="bytes=0-9").status == 206
    before = mover.settled_census()
    disk.begin()
    failed(mover.ask("PUT", "/images/disk", DATA), "write", why)
    disk.end()
    with mapped(source) as sent:
        with contextlib.suppress(ConnectionError):
            failed(upload(mover.tcp, "/images/disk", sent, {SIZE // 2: disk.begin}), "write", why)
        disk.end()
        assert upload(mover.tcp, "/images/disk", sent).status == 200
    assert_same_file(disk.file, source)
    mover.assert_returns_to(before)
    mover.stop_clean()


def test_a_zero_that_fails_is_told(images: Images, start_mover: StartMover) -> None:
    """PATCH zero, and a body of zeros, are 500s; the image is as before or zero, and later it works."""
    disk = Faulty(images, "zero")
    mover = start_mover({"disk": disk.server})
    disk.begin()
    failed(mover.ask("PATCH", "/images/disk", b'{"op": "zero", "size": 65536}'), "zero", "Input/output error")
    failed(mover.ask("PUT", "/images/disk", bytes(MIB)), "Input/output error")
    disk.end()
    assert mover.ask("PATCH", "/images/disk", b'{"op": "zero", "size": 65536}').status == 200
    assert mover.ask("GET", "/images/disk", Range="bytes=0-65537").body == bytes(65536) + pattern(1, 65536, 2)
    mover.stop_clean()


def test_extents_that_fail_are_told_and_a_get_reads_instead(images: Images, start_mover: StartMover) -> None:
    """GET extents is an error, never a guess; GET of the image needs none and is whole."""
    disk = Faulty(images, "extents")
    mover = start_mover({"disk": disk.server})
    disk.begin()
    failed(mover.ask("GET", "/images/disk/extents"), "extents", "Input/output error")
    with mapped(disk.file) as expected:
        download(mover.tcp, "/images/disk", expected)
    disk.end()
    assert mover.ask("GET", "/images/disk/extents").status == 200
    mover.stop_clean()


def scripted(images: Images, *more: str) -> tuple[Path, NbdServer]:
    """A server made of shell scripts (nbdkit's eval plugin) over a file of 64 KiB."""
    file = images.pattern("disk", 1, 64 * 1024)
    dd = f"conv=notrunc iflag=fullblock,count_bytes,skip_bytes oflag=seek_bytes of={file} 2>/dev/null"
    return file, images.nbdkit(
        "scripted", "eval", f"get_size=echo {64 * 1024}",
        f"pread=dd if={file} iflag=skip_bytes,count_bytes skip=$4 count=$3 2>/dev/null",
        f"pwrite=dd seek=$4 count=$3 {dd}", "can_write=exit 0", *more,
    )  # fmt: skip


def test_a_flush_that_fails_is_told_until_one_works(images: Images, start_mover: StartMover) -> None:
    """PUT with flush, PATCH and POST flush are 500s while it fails; the writes are not forgotten over it."""
    trouble = images.room / "trouble"
    trouble.touch()
    script = f"flush=if [ -e {trouble} ]; then echo EIO >&2; exit 1; fi"
    file, server = scripted(images, "can_flush=exit 0", script)
    mover = start_mover({"disk": server})
    failed(mover.ask("PUT", "/images/disk", DATA), "flush", "Input/output error")
    failed(mover.ask("PATCH", "/images/disk", b'{"op": "flush"}'), "flush")
    failed(mover.ask("POST", "/images/disk/flush"), "flush")
    assert mover.ask("PUT", "/images/disk?flush=n", DATA).json()["flushed"] is False
    trouble.unlink()
    assert mover.ask("POST", "/images/disk/flush").json()["flushed"] is True
    assert file.read_bytes()[: len(DATA)] == DATA
    mover.stop_clean()


def test_a_server_without_flush_is_no_silence(images: Images, start_mover: StartMover) -> None:
    """A write that asks for a flush is refused before a byte is written; without, it is written and says so."""
    file, server = scripted(images, "can_flush=exit 3")
    mover = start_mover({"disk": server})
    assert mover.ask("PUT", "/images/disk", DATA).status == 501
    assert difference(file.read_bytes(), pattern(1, 0, 64 * 1024)) is None
    assert mover.ask("PUT", "/images/disk?flush=n", DATA).json() == {
        "ok": True, "bytes_written": len(DATA), "flushed": False,
    }  # fmt: skip
    assert mover.ask("POST", "/images/disk/flush").status >= 400
    assert "flush" not in mover.ask("OPTIONS", "/images/disk").json()["features"]
    assert file.read_bytes()[: len(DATA)] == DATA
    mover.stop_clean()


SHAPES: dict[str, tuple[list[str], list[str]]] = {
    "sectors": (["blocksize-policy"], ["blocksize-minimum=512", "blocksize-error-policy=error"]),
    "pages": (["blocksize-policy"], ["blocksize-minimum=4096", "blocksize-error-policy=error"]),
    "big blocks": (
        ["blocksize-policy"],
        ["blocksize-minimum=65536", "blocksize-preferred=65536", "blocksize-error-policy=error"],
    ),
    "small requests": (
        ["blocksize-policy"],
        ["blocksize-minimum=1", "blocksize-preferred=4096", "blocksize-maximum=65536", "blocksize-error-policy=error"],
    ),
    "no extents": (["noextents"], []),
    "no zero": (["nozero"], []),
    "emulated zero": (["nozero"], ["zeromode=emulate"]),
    "no multi-conn": (["multi-conn"], ["multi-conn-mode=disable"]),
    "emulated multi-conn": (["multi-conn"], ["multi-conn-mode=emulate"]),
    "slow": (["delay"], ["delay-read=5ms", "delay-write=5ms"]),
    "throttled": (["rate"], ["rate=1600M"]),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_any_shape_of_server_is_read_and_written_right(shape: str, images: Images, start_mover: StartMover) -> None:
    """Whole, in unaligned parts, with zeros in between: what was written is what is read, and what the file holds."""
    filters, words = SHAPES[shape]
    file, length = images.pattern("disk", 1, 8 * MIB), 8 * MIB
    server = images.nbdkit("shaped", "file", str(file), *words, filters=filters, threads=4)
    mover = start_mover({"disk": server})
    assert mover.ask("GET", "/images/disk", Range="bytes=0-9").status == 206
    before = mover.settled_census()
    expected = bytearray(pattern(1, 0, length))
    for offset, count in ((1, 1), (511, 2), (4095, 70000), (MIB - 3, MIB + 7), (length - 5, 5), (3 * MIB, 2 * MIB)):
        written = pattern(2, offset, count)
        assert put(mover, offset, written).status == 200
        expected[offset : offset + count] = written
    for offset, count in ((65535, 3), (5 * MIB + 1, MIB), (6 * MIB, 65536)):
        zero = f'{{"op": "zero", "offset": {offset}, "size": {count}}}'
        assert mover.ask("PATCH", "/images/disk", zero.encode()).status == 200
        expected[offset : offset + count] = bytes(count)
    download(mover.tcp, "/images/disk", memoryview(expected))
    for offset, count in ((1, 1), (510, 3), (4097, 65537), (2 * MIB - 1, 2 * MIB + 3), (length - 1, 1)):
        answer = mover.ask("GET", "/images/disk", Range=f"bytes={offset}-{offset + count - 1}")
        assert difference(answer.body, expected[offset : offset + count], offset) is None
    check_extents(mover.ask("GET", "/images/disk/extents"), expected)
    assert mover.ask("POST", "/images/disk/flush").status == 200
    with mapped(file) as found:
        assert difference(found, expected) is None
    mover.assert_returns_to(before)
    mover.stop_clean()
    assert server.running, server.log()


def put(mover: Mover, offset: int, data: bytes) -> Answer:
    """PUT without flush at an offset."""
    place = f"bytes {offset}-{offset + len(data) - 1}/*"
    return mover.ask("PUT", "/images/disk?flush=n", data, Content_Range=place)


def check_extents(answer: Answer, content: bytearray) -> None:
    """They cover the image without gaps, and what is said to be zero is."""
    at = 0
    for extent in answer.json():
        assert extent["start"] == at
        at += extent["length"]
        assert not extent["zero"] or not any(content[extent["start"] : at])
    assert at == len(content)


def test_a_server_outlives_clients_that_leave(images: Images, start_mover: StartMover) -> None:
    """nbdkit 1.32 dies of a client that leaves commands behind: Mover's workers leave none, whoever leaves Mover."""
    file = images.pattern("disk", 1, SIZE)
    words = ["delay-read=20ms", "delay-write=20ms"]
    server = images.nbdkit("slow", "file", str(file), *words, filters=["delay"], threads=16)
    settings = {"front": {"lane_idle_s": 0.3}, "worker": {"idle_s": 0.1}}
    mover = start_mover({"disk": server}, settings)
    body = file.read_bytes()
    for _ in range(3):
        with contextlib.closing(connect(mover.tcp)) as reader, contextlib.closing(connect(mover.tcp)) as writer:
            reader.sendall(head("GET", "/images/disk"))
            writer.sendall(head("PUT", "/images/disk", Content_Length=SIZE) + body[: SIZE // 2])
            # A tenth of a second later none is, if nobody looked.
            wait_until("commands are in flight, or were", lambda: any(map(began, mover.workers())))
        wait_until("lane and worker are closed", lambda: not mover.workers())
        assert server.running, server.log()
    with mover.client() as reading:
        reading.begin("GET", "/images/disk")
    assert mover.stop() == 0
    mover.wait_for_end()
    assert server.running, server.log()
    assert difference(file.read_bytes(), body) is None


def began(row: dict[str, Any]) -> bool:
    """Whether this worker has asked its server for anything yet."""
    return bool(row["in_flight"] or row["bytes_read"] or row["bytes_written"])


def test_a_read_only_server_is_only_read(images: Images, start_mover: StartMover) -> None:
    """Every write is a 403 that changes nothing, OPTIONS offers none, and reads work."""
    file = images.pattern("disk", 1, MIB)
    mover = start_mover({"disk": images.nbdkit("ro", "file", str(file), read_only=True)})
    options = mover.ask("OPTIONS", "/images/disk")
    assert options.json()["max_writers"] == 0
    assert options.json()["features"] == ["checksum", "extents"]
    assert "PUT" not in options.headers["allow"]
    for method, target, body in (
        ("PUT", "/images/disk", DATA),
        ("PUT", "/images/disk?flush=n", DATA),
        ("PATCH", "/images/disk", b'{"op": "zero", "size": 512}'),
        ("PATCH", "/images/disk", b'{"op": "flush"}'),
        ("POST", "/images/disk/flush", None),
    ):
        answer = mover.ask(method, target, body)
        assert answer.status == 403, (method, target, answer)
    with mapped(file) as expected:
        download(mover.tcp, "/images/disk", expected)
        assert difference(expected, pattern(1, 0, MIB)) is None
    mover.stop_clean()


def test_a_server_that_pauses_is_waited_for(images: Images, start_mover: StartMover) -> None:
    """Stopped in the middle of a GET and of a PUT until commands wait, and then going on: both are whole."""
    source, disk = images.pattern("source", 1, SIZE), images.pattern("disk", 2, SIZE)
    reading, writing = images.qemu_nbd(source), images.qemu_nbd(disk)
    mover = start_mover({"source": reading, "disk": writing})
    resuming: list[Doing[None]] = []

    def resume(server: NbdServer) -> None:
        wait_until("commands wait", lambda: waiting(mover, server))
        server.resume()

    def pause(server: NbdServer) -> None:
        server.pause()
        resuming.append(Doing(partial(resume, server)))

    with mapped(source) as expected:
        download(mover.tcp, "/images/source", expected, {SIZE // 3: partial(pause, reading)})
        assert upload(mover.tcp, "/images/disk", expected, {SIZE // 3: partial(pause, writing)}).status == 200
    for one in resuming:
        one.result()
    assert_same_file(disk, source)
    mover.stop_clean()


def waiting(mover: Mover, server: NbdServer) -> bool:
    """Whether commands to this server have no answer."""
    return any(row["in_flight"] for row in mover.workers() if row["export"] == server.uri())


def test_an_export_that_is_not_there_is_said_to_be_missing(images: Images, start_mover: StartMover) -> None:
    """A wrong export name, a socket that nobody serves: 502 or 503 at once, with the reason; other images work."""
    server = images.qemu_nbd(images.pattern("disk", 1, MIB), export="here")
    nowhere = f"nbd+unix:///?socket={images.room / 'nowhere'}"
    mover = start_mover({"disk": server.uri("here"), "there": server.uri("there"), "nowhere": nowhere})
    for image in ("there", "nowhere"):
        answer = mover.ask("GET", f"/images/{image}")
        assert answer.status in (502, 503), answer
        assert answer.json()["error"]
    assert mover.ask("GET", "/images/disk").status == 200
    mover.stop_clean()
