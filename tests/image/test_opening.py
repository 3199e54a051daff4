"""A ticket's paths are judged again whenever a worker opens them: what was turned elsewhere meanwhile stays closed."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from config.export import Export
from config.roots import Roots
from config.settings import WorkerSettings
from tests.harness.fixtures import Images
from tests.harness.waiting import PATIENCE_S
from tests.image.process import MIB, Process, working
from workers.lane.lane_states import LaneLost, LaneState
from workers.lane.protocol import Kind, Status

pytestmark = pytest.mark.usefixtures("loop")

QUICK = WorkerSettings(reconnect_s=0.1, settle_s=0.1)
SECRET = b"secret" * 1000


@pytest.fixture
def disks(room: Path) -> Path:
    """The only directory that is allowed, with `deep/disk` in it; `secret/disk` is beside it."""
    for directory, content in (("disks/deep", bytes(MIB)), ("secret", SECRET)):
        (room / directory).mkdir(parents=True)
        (room / directory / "disk").write_bytes(content)
    return room / "disks"


def only(disks: Path) -> Roots:
    return Roots(files=(str(disks),), nbd_sockets=(str(disks),))


def turn(disks: Path) -> None:
    """The directory becomes a link to the secret one."""
    (disks / "deep").rename(disks / "was")
    (disks / "deep").symlink_to("../secret")


async def lane_closed(process: Process) -> str:
    """Why the lane was closed."""
    async with asyncio.timeout(PATIENCE_S):
        while process.lane.state is not LaneState.CLOSED:
            await asyncio.sleep(0.01)
    assert process.lane.lost is not None
    return process.lane.lost.reason


async def refused_anew(process: Process, key: str) -> None:
    """Whoever comes now hears that it is not allowed."""
    process.lane = process.new_lane()
    process.attach(process.lane)
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(LaneLost, match=f"outside of {key} now"):
            await process.lane.opened()


async def test_a_raw_file_whose_path_is_turned_elsewhere_is_let_go_and_not_opened_there(disks: Path) -> None:
    export = Export("file", path=str(disks / "deep" / "disk"))
    async with working(export, QUICK, roots=only(disks)) as process:
        assert await process.read(0, 4096) == bytes(4096)
        turn(disks)
        assert "another one has taken its place" in await lane_closed(process)
        await refused_anew(process, "allow.files")
    assert (disks.parent / "secret" / "disk").read_bytes() == SECRET


@pytest.mark.parametrize("whole_file", [False, True])
async def test_a_path_that_leads_out_before_it_is_opened_first_is_refused(disks: Path, whole_file: bool) -> None:
    turn(disks)
    export = Export("file", path=str(disks / "deep" / "disk"), whole_file=whole_file)
    with pytest.raises(LaneLost, match=r"cannot open the file: it is outside of allow\.files now"):
        async with working(export, QUICK, roots=only(disks)):
            raise AssertionError("it is open")


async def test_a_whole_file_is_looked_at_for_every_session(disks: Path) -> None:
    """Neither is the other file read, nor is anything written beside it; what was open before goes on."""
    export = Export("file", path=str(disks / "deep" / "disk"), whole_file=True)
    async with working(export, QUICK, roots=only(disks)) as process:
        old = await process.open()
        begun = await process.do(Kind.BEGIN, length=3)
        turn(disks)
        for answer in (await process.open(), await process.do(Kind.BEGIN, length=3), await process.do(Kind.FLUSH)):
            assert (answer.status, answer.value) == (Status.FAILED, errno.EACCES)
        assert await process.read(0, 4096, old.value) == bytes(4096)
        await process.do(Kind.WRITE, 0, data=b"new", context=begun.value)
        assert (await process.do(Kind.COMMIT, begun.value)).status is Status.OK
        assert os.listdir(disks.parent / "secret") == ["disk"]
    assert (disks / "was" / "disk").read_bytes() == b"new"
    assert (disks.parent / "secret" / "disk").read_bytes() == SECRET


async def test_a_whole_file_that_becomes_a_link_is_not_followed_out(disks: Path) -> None:
    export = Export("file", path=str(disks / "deep" / "disk"), whole_file=True)
    async with working(export, QUICK, roots=only(disks)) as process:
        (disks / "deep" / "disk").unlink()
        (disks / "deep" / "disk").symlink_to("../../secret/disk")
        assert (await process.open()).value == errno.EACCES
        assert (await process.do(Kind.BEGIN, length=1)).value == errno.EACCES
        (disks / "deep" / "disk").unlink()
        (disks / "deep" / "disk").symlink_to("../other")
        begun = await process.do(Kind.BEGIN, length=0)
        assert (await process.do(Kind.COMMIT, begun.value)).status is Status.OK
    assert (disks / "other").read_bytes() == b""


@pytest.mark.nbd
async def test_a_socket_is_reached_by_links_within_and_not_without(disks: Path, images: Images) -> None:
    server = images.qemu_nbd(images.hole("image", MIB))
    link = disks / "nbd"
    link.symlink_to("deep/nbd")
    os.link(server.socket, disks / "deep" / "nbd")
    export = Export("unix", socket=str(link))
    async with working(export, QUICK, roots=only(disks)) as process:
        assert await process.read(0, 4096) == bytes(4096)
        link.unlink()
        link.symlink_to(server.socket)
        server.stop()
        assert "the server closed the connection" in await lane_closed(process)
        server.start()
        await refused_anew(process, "allow.nbd_sockets")
