"""The real servers that the contract's tables are tried on: one Mover before a dozen of NBD exports."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

from tests.harness.certificates import Authority, tables
from tests.harness.http import Secure
from tests.harness.mover import Mover, Tables
from tests.harness.patterns import pattern, write_pattern
from tests.harness.servers import NbdServer, nbdkit, qemu_nbd

KIB = 1024
MIB = 1024 * KIB

# A size that is no multiple of any block, and large enough for a body of more than one slot.
DATA_BYTES = 2 * MIB + 333
SCRATCH_BYTES = 3 * MIB
NAMED_BYTES = 64 * KIB
NO_FLUSH_BYTES = 64 * KIB
CHANGING_BYTES = MIB
# Of more than one block-status request, and than 32 bits hold.
HUGE_BYTES = 9 * 1024 * MIB
# In extents of 32 KiB or so: more than one slot takes.
SHREDS_BYTES = 2048 * MIB
FRAGMENTED_BYTES = 256 * MIB
DIRTY_BYTES = 4 * MIB
# Of 64 KiB each, the clusters of a qcow2 image.
DIRTY_CLUSTERS = (3, 4, 17)
ZEROED_CLUSTER = 17

SETTINGS: Tables = {"front": {"cors_origin": "https://appliance.example"}}

LONGEST_ID = "x" * 255
UTF8_ID = "Bücher 100% & mehr"

# A server of 64 KiB that has no flush. Each operation is a line of shell, $3 a count and $4 an offset.
EVAL = (
    "get_size=stat -Lc %s {file}",
    "pread=dd iflag=count_bytes,skip_bytes status=none if={file} count=$3 skip=$4",
    "can_write=exit 0",
    "pwrite=dd oflag=seek_bytes conv=notrunc status=none of={file} seek=$4",
    "can_flush=exit 3",
)


class House:
    """Mover, its images by id, and the files behind those that are written."""

    def __init__(self, mover: Mover, room: Path, urls: Mapping[str, NbdServer | str]) -> None:
        self.mover = mover
        self.room = room
        self.urls = urls
        self.scratch = room / "scratch.raw"
        self.fragmented = room / "fragmented.qcow2"

    def renew(self) -> None:
        """Make the scratch image what it was at first; qemu-nbd reads through the same page cache."""
        with self.scratch.open("r+b") as file:
            file.write(pattern(2, 0, SCRATCH_BYTES))

    def written(self, offset: int, length: int) -> bytes:
        """Bytes of the scratch image as its file has them."""
        with self.scratch.open("rb") as file:
            file.seek(offset)
            return file.read(length)


def data(offset: int = 0, length: int | None = None) -> bytes:
    """Bytes of the image `data`."""
    return pattern(1, offset, DATA_BYTES - offset if length is None else length)


def scratch(offset: int = 0, length: int | None = None) -> bytes:
    """Bytes of the image `scratch` as every row finds it."""
    return pattern(2, offset, SCRATCH_BYTES - offset if length is None else length)


@contextmanager
def build(room: Path) -> Iterator[House]:
    """Everything, started; and ended."""
    with ExitStack() as stack:
        urls: dict[str, NbdServer | str] = {}
        for id, server in servers(room).items():
            stack.callback(server.close)
            urls[id] = server.start()
        urls |= {
            "dirty": f"nbd+unix:///?socket={room}/dirty.nbd&bitmap=since",
            "no-bitmap": f"nbd+unix:///?socket={room}/dirty.nbd&bitmap=other",
            "named": f"nbd+unix:///{quote('a name/ü', safe='')}?socket={room}/named.nbd",
            "old-form": f"nbd:unix:{room}/data.nbd",
            "gone": f"nbd+unix:///?socket={room}/gone.nbd",
            "closed": "nbd://127.0.0.1:1/",
            "wrong-name": f"nbd+unix:///other?socket={room}/named.nbd",
            "x" * 255: f"nbd+unix:///?socket={room}/data.nbd",
            UTF8_ID: f"nbd+unix:///?socket={room}/data.nbd",
        }
        mover = Mover(room, urls, SETTINGS)
        stack.callback(mover.close)
        yield House(mover.start(), room, urls)


@contextmanager
def beside(house: House, room: Path) -> Iterator[Secure]:
    """A second Mover before the same servers, which speaks TLS: its address."""
    room.mkdir()
    authority = Authority(room)
    mover = Mover(room, house.urls, {**SETTINGS, "tls": tables(authority.issue("server"))})
    try:
        yield mover.start().secure(authority.client_context())
    finally:
        mover.close()


def servers(room: Path) -> dict[str, NbdServer]:
    """The servers by the id of their image; not yet started."""
    write_pattern(room / "data.raw", 1, DATA_BYTES)
    write_pattern(room / "scratch.raw", 2, SCRATCH_BYTES)
    write_pattern(room / "named.raw", 3, NAMED_BYTES)
    (room / "small.raw").write_bytes(bytes(NO_FLUSH_BYTES))
    _make_dirty(room / "dirty.qcow2")
    _make_fragmented(room / "fragmented.qcow2")
    file = f"file={room}/data.raw"
    return {
        "data": nbdkit(room, "data", "file", file),
        "tcp": nbdkit(room, "tcp", "file", file, tcp=True),
        "read-only": nbdkit(room, "read-only", "file", file, read_only=True),
        "no-extents": nbdkit(room, "no-extents", "file", file, filters=["noextents"]),
        "no-zero": nbdkit(room, "no-zero", "memory", "size=1M", filters=["nozero"]),
        "no-flush": nbdkit(room, "no-flush", "eval", *(line.format(file=room / "small.raw") for line in EVAL)),
        "empty": nbdkit(room, "empty", "memory", "size=0"),
        "shreds": nbdkit(room, "shreds", "sparse-random", f"size={SHREDS_BYTES}", "percent=50", "runlength=32768"),
        "huge": nbdkit(room, "huge", "memory", f"size={HUGE_BYTES}"),
        "changing": nbdkit(room, "changing", "memory", f"size={CHANGING_BYTES}"),
        "scratch": qemu_nbd(room, "scratch", room / "scratch.raw"),
        "named": qemu_nbd(room, "named", room / "named.raw", export="a name/ü"),
        "dirty": qemu_nbd(room, "dirty", room / "dirty.qcow2", image_format="qcow2", bitmap="since"),
        "fragmented": qemu_nbd(room, "fragmented", room / "fragmented.qcow2", image_format="qcow2", read_only=True),
    }


def run(*command: str | Path) -> bytes:
    """Run a tool to its end; what it prints."""
    return subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE).stdout


def _make_dirty(image: Path) -> None:
    """Half of it written before the bitmap began to record, three clusters after; one of these zeroed."""
    run("qemu-img", "create", "-q", "-f", "qcow2", image, str(DIRTY_BYTES))
    run("qemu-io", "-f", "qcow2", "-c", f"write -q -P 1 0 {DIRTY_BYTES // 2}", image)
    run("qemu-img", "bitmap", "--add", "-f", "qcow2", image, "since")
    for cluster in DIRTY_CLUSTERS:
        write = "write -q -z" if cluster == ZEROED_CLUSTER else "write -q -P 2"
        run("qemu-io", "-f", "qcow2", "-c", f"{write} {cluster * 64 * KIB} {64 * KIB}", image)


def _make_fragmented(image: Path) -> None:
    """Runs of data, zeros and holes of all lengths, many enough for several replies."""
    run("qemu-img", "create", "-q", "-f", "qcow2", image, str(FRAGMENTED_BYTES))
    commands: list[str] = []
    for number in range(600):
        at, length = number * 400 * KIB, (1 + number % 5) * 64 * KIB
        write = ("write -q -P 7", "write -q -z", "write -q -z -u")[number % 3]
        commands += ["-c", f"{write} {at - at % (64 * KIB)} {length}"]
    run("qemu-io", "-f", "qcow2", *commands, image)
