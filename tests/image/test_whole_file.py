"""Whole files in sessions, through a real worker: read as they were opened, replaced as a whole or not at all."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import resource
from pathlib import Path

import pytest

from config.export import Export
from tests.harness.waiting import PATIENCE_S
from tests.image.process import MIB, Process, working
from workers.lane.front_lane import FrontLane
from workers.lane.protocol import Completion, Kind, Status

pytestmark = pytest.mark.usefixtures("loop")

OLD = b"what was there before"


def whole(path: Path) -> Export:
    return Export("file", path=str(path), whole_file=True)


@pytest.fixture
def file(room: Path) -> Path:
    path = room / "disk.qcow2"
    path.write_bytes(OLD)
    return path


def beside(file: Path) -> list[str]:
    """What lies in the directory besides the file."""
    return sorted(name for name in os.listdir(file.parent) if name != file.name)


async def begin(process: Process, length: int) -> int:
    completion = await process.do(Kind.BEGIN, length=length)
    assert completion.status is Status.OK, completion
    return completion.value


async def write(process: Process, session: int, offset: int, data: bytes) -> Completion:
    return await process.do(Kind.WRITE, offset, data=data, context=session)


def failed(completion: Completion, status: Status, number: int) -> bool:
    return (completion.status, completion.value) == (status, number)


async def emptied(file: Path) -> None:
    """Until no temporary file is left; a worker removes them in its own time."""
    async with asyncio.timeout(PATIENCE_S):
        while beside(file):
            await asyncio.sleep(0.001)


# -- reading ---------------------------------------------------------------------------------------------------


async def test_a_get_goes_on_with_the_file_that_it_opened_and_the_next_one_sees_the_new(file: Path) -> None:
    async with working(whole(file)) as process:
        first = await process.open()
        assert first.covered == len(OLD)
        session = await begin(process, 3)
        assert (await write(process, session, 0, b"new")).status is Status.OK
        assert (await process.do(Kind.COMMIT, session)).status is Status.OK
        second = await process.open()
        assert second.covered == 3
        assert await process.read(0, len(OLD), first.value) == OLD
        assert await process.read(0, 3, second.value) == b"new"
        for opened in (first, second):
            assert (await process.do(Kind.ROLLBACK, opened.value)).status is Status.OK
        assert file.read_bytes() == b"new"


async def test_an_empty_file_has_size_0_and_a_missing_one_is_enoent_until_it_is_put(file: Path) -> None:
    file.write_bytes(b"")
    async with working(whole(file)) as process:
        assert (await process.open()).covered == 0
        file.unlink()
        assert failed(await process.open(), Status.FAILED, errno.ENOENT)
        assert failed(await process.do(Kind.FLUSH), Status.FAILED, errno.ENOENT)
        session = await begin(process, 0)
        assert (await process.do(Kind.COMMIT, session)).status is Status.OK
        assert file.read_bytes() == b""
        assert (await process.do(Kind.FLUSH)).status is Status.OK


async def test_a_file_that_is_not_there_yet_can_be_put_but_its_directory_must_be_there(file: Path) -> None:
    new = file.parent / "new"
    async with working(whole(new)) as process:
        session = await begin(process, 1)
        await write(process, session, 0, b"x")
        assert (await process.do(Kind.COMMIT, session)).status is Status.OK
    assert new.read_bytes() == b"x"
    umask = os.umask(0)
    os.umask(umask)
    assert new.stat().st_mode & 0o777 == 0o666 & ~umask


# -- writing ---------------------------------------------------------------------------------------------------


async def test_nobody_sees_what_is_not_committed_and_a_rollback_leaves_nothing(file: Path) -> None:
    async with working(whole(file)) as process:
        session = await begin(process, 2 * MIB)
        assert (await write(process, session, MIB, b"x" * MIB)).status is Status.OK
        assert file.read_bytes() == OLD
        assert failed(await process.do(Kind.COMMIT, session), Status.FAILED, errno.EBUSY)
        assert (await process.do(Kind.ROLLBACK, session)).status is Status.OK
        assert failed(await write(process, session, 0, b"x"), Status.FAILED, errno.ESTALE)
        await emptied(file)
        assert file.read_bytes() == OLD


async def test_only_all_of_the_announced_bytes_can_be_committed(file: Path) -> None:
    async with working(whole(file)) as process:
        session = await begin(process, 10)
        assert failed(await write(process, session, 5, b"123456"), Status.FAILED, errno.EINVAL)
        await write(process, session, 0, b"12345")
        assert failed(await process.do(Kind.COMMIT, session), Status.FAILED, errno.EBUSY)
        await write(process, session, 5, bytes(5))
        assert (await process.do(Kind.COMMIT, session)).status is Status.OK
        assert file.read_bytes() == b"12345" + bytes(5)


async def test_mode_owner_and_attributes_of_the_old_file_are_the_new_ones(file: Path) -> None:
    file.chmod(0o640)
    if os.getuid() == 0:
        os.chown(file, 12345, 54321)
    try:
        os.setxattr(file, "user.mover", b"kept")
    except OSError:
        attributes = []
    else:
        attributes = [("user.mover", b"kept")]
    async with working(whole(file)) as process:
        session = await begin(process, 1)
        await write(process, session, 0, b"x")
        assert (await process.do(Kind.COMMIT, session)).status is Status.OK
    found = file.stat()
    assert found.st_mode & 0o7777 == 0o640
    if os.getuid() == 0:
        assert (found.st_uid, found.st_gid) == (12345, 54321)
    assert [(name, os.getxattr(file, name)) for name in os.listxattr(file) if name.startswith("user.")] == attributes


async def test_what_a_link_leads_to_is_replaced_not_the_link(file: Path) -> None:
    link = file.parent / "link"
    link.symlink_to(file.name)
    async with working(whole(link)) as process:
        session = await begin(process, 1)
        await write(process, session, 0, b"x")
        assert (await process.do(Kind.COMMIT, session)).status is Status.OK
    assert link.is_symlink()
    assert file.read_bytes() == b"x"


async def test_two_that_put_at_once_do_not_mix_and_the_last_one_to_commit_has_its_way(file: Path) -> None:
    async with working(whole(file)) as process:
        one, other = await begin(process, 2 * MIB), await begin(process, MIB)
        await write(process, one, 0, b"1" * MIB)
        await write(process, other, 0, b"2" * MIB)
        await write(process, one, MIB, b"1" * MIB)
        assert (await process.do(Kind.COMMIT, one)).status is Status.OK
        assert file.read_bytes() == b"1" * 2 * MIB
        assert (await process.do(Kind.COMMIT, other)).status is Status.OK
        assert file.read_bytes() == b"2" * MIB
    assert beside(file) == []


async def test_zeros_become_holes(file: Path) -> None:
    async with working(whole(file)) as process:
        session = await begin(process, 4 * MIB)
        for at in range(4):
            await write(process, session, at * MIB, bytes(MIB) if at % 2 else b"x" * MIB)
        await process.do(Kind.COMMIT, session)
    assert file.read_bytes() == (b"x" * MIB + bytes(MIB)) * 2
    assert file.stat().st_blocks * 512 < 3 * MIB


# -- ends ------------------------------------------------------------------------------------------------------


async def test_a_session_is_its_lanes_alone_and_goes_with_it(file: Path) -> None:
    async with working(whole(file)) as process:
        session = await begin(process, 1)
        other: FrontLane = process.new_lane()
        process.attach(other)
        await other.opened()
        assert failed(await other.run(Kind.COMMIT, session), Status.FAILED, errno.ESTALE)
        theirs = await other.run(Kind.BEGIN, 0, 1)
        assert theirs.status is Status.OK
        assert len(beside(file)) == 2
        other.close("its front end is gone")
        async with asyncio.timeout(PATIENCE_S):
            while len(beside(file)) > 1:
                await asyncio.sleep(0.001)
        await write(process, session, 0, b"x")
        assert (await process.do(Kind.COMMIT, session)).status is Status.OK
        assert file.read_bytes() == b"x"


async def test_a_put_whose_worker_is_killed_fails_and_changes_nothing_and_its_leftover_goes(file: Path) -> None:
    async with working(whole(file)) as process:
        session = await begin(process, 2 * MIB)
        await write(process, session, 0, b"x" * MIB)
        process.kill()
        assert len(beside(file)) == 1
        late = asyncio.ensure_future(write(process, session, MIB, b"x" * MIB))
        await asyncio.sleep(0)
        process.start()
        assert failed(await late, Status.FAILED, errno.ESTALE)
        assert failed(await process.do(Kind.COMMIT, session), Status.FAILED, errno.ESTALE)
        assert (file.read_bytes(), beside(file)) == (OLD, [])
        again = await begin(process, 3)
        assert again != session
        await write(process, again, 0, b"new")
        assert (await process.do(Kind.COMMIT, again)).status is Status.OK
    assert file.read_bytes() == b"new"


async def test_what_another_mover_writes_at_this_moment_is_not_swept_away(file: Path) -> None:
    locked, left = (file.parent / f".{file.name}.mover-{name}" for name in ("locked", "left"))
    left.write_bytes(b"")
    with locked.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        async with working(whole(file)):
            assert beside(file) == [locked.name]


async def test_a_disk_that_is_full_fails_the_put_and_keeps_the_old_file(file: Path) -> None:
    """As with the limit of a file's size, which a worker is started under."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    process_limit = 64 * MIB  # the ledger, arena and rings are files, too
    resource.setrlimit(resource.RLIMIT_FSIZE, (process_limit, hard))
    try:
        async with working(whole(file)) as process:
            completion = await process.do(Kind.BEGIN, length=process_limit + 1)
            assert failed(completion, Status.FAILED, errno.EFBIG)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (file.read_bytes(), beside(file)) == (OLD, [])


async def test_a_whole_file_has_no_ranges_to_zero_and_no_extents_and_a_raw_one_no_sessions(file: Path) -> None:
    async with working(whole(file)) as process:
        assert failed(await process.do(Kind.ZERO, 0, 1), Status.REFUSED, errno.EOPNOTSUPP)
        completion, _ = await process.filled(Kind.EXTENTS, 0, 1)
        assert failed(completion, Status.REFUSED, errno.EOPNOTSUPP)
        completion, _ = await process.filled(Kind.READ, 0, 1)
        assert failed(completion, Status.FAILED, errno.ESTALE)
    async with working(Export("file", path=str(file))) as process:
        for kind in (Kind.OPEN, Kind.BEGIN, Kind.COMMIT, Kind.ROLLBACK):
            assert failed(await process.do(kind, length=1), Status.REFUSED, errno.EOPNOTSUPP)
