"""An image on its way into a file store, through a real worker: whole, durable and seen, or not there at all."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

from tests.store.shop import IMAGE, MIB, assert_published, assert_refused, listing, shop, store_in
from workers.lane.protocol import Status
from workers.lane.store_format import Forget, Keep, Kept, Look, Publish, Published, Receive, Why

pytestmark = pytest.mark.usefixtures("loop")


def noise(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


async def test_what_is_published_has_the_bytes_the_size_and_both_checksums(room: Path) -> None:
    data = noise(9 * MIB + 333)
    async with shop(store_in(room)) as image:
        answer = await image.put(data)
        assert_published(answer, room / IMAGE, data)
    assert (room / IMAGE).stat().st_mode & 0o777 == 0o640


async def test_an_empty_image_is_an_image(room: Path) -> None:
    async with shop(store_in(room)) as image:
        assert_published(await image.put(b"", size=0), room / IMAGE, b"")


async def test_nobody_sees_what_is_not_published_and_a_rollback_leaves_nothing(room: Path) -> None:
    async with shop(store_in(room)) as image:
        session = await image.receive()
        await image.write(session, noise(2 * MIB))
        assert not (room / IMAGE).exists()
        assert (await image.roll_back(session)).status is Status.OK
        assert listing(room) == []
        [late] = await image.write(session, b"x", 2 * MIB)
        assert (late.status, late.value) == (Status.FAILED, errno.ESTALE)


async def test_bytes_that_do_not_follow_each_other_are_refused(room: Path) -> None:
    async with shop(store_in(room)) as image:
        session = await image.receive(size=3 * MIB)
        await image.write(session, noise(MIB))
        for offset, length in ((0, 1), (2 * MIB, 1)):
            [refused] = await image.write(session, bytes(length), offset)
            assert (refused.status, refused.value) == (Status.FAILED, errno.EINVAL)


async def test_too_few_bytes_too_many_and_wrong_ones_are_refused_and_leave_nothing(room: Path) -> None:
    data = noise(MIB + 5)
    async with shop(store_in(room)) as image:
        assert_refused(await image.put(data, size=len(data) + 1), Why.WRONG_SIZE)
        assert_refused(await image.put(data, md5="0" * 32), Why.WRONG_CHECKSUM)
        session = await image.receive(size=len(data) - 1)
        completions = await image.write(session, data)
        assert [one.value for one in completions] == [0, errno.EINVAL]
        await image.roll_back(session)
        assert listing(room) == []
        assert_published(await image.put(data), room / IMAGE, data)


async def test_an_image_is_never_replaced(room: Path) -> None:
    (room / IMAGE).write_bytes(b"somebody else's")
    async with shop(store_in(room)) as image:
        assert_refused(await image.ask(Receive(IMAGE, "sha512")), Why.DUPLICATE)
        (room / IMAGE).unlink()
        session = await image.receive()
        await image.write(session, b"mine")
        (room / IMAGE).write_bytes(b"somebody else's")
        assert_refused(await image.ask(Publish(session)), Why.DUPLICATE)
    assert (room / IMAGE).read_bytes() == b"somebody else's"
    assert listing(room) == [IMAGE]


async def test_one_upload_of_an_image_at_a_time(room: Path) -> None:
    async with shop(store_in(room)) as image, shop(store_in(room)) as other:
        session = await image.receive()
        assert_refused(await image.ask(Receive(IMAGE, "sha512")), Why.BUSY)
        assert_refused(await other.ask(Receive(IMAGE, "sha512")), Why.BUSY)
        await image.roll_back(session)
        assert_published(await other.put(b"x"), room / IMAGE, b"x")


async def test_zeros_become_holes_and_are_hashed(room: Path) -> None:
    pieces = [noise(256 * 1024, at) if at % 5 == 0 else bytes(256 * 1024) for at in range(80)]
    data = b"".join(pieces) + bytes(777)
    async with shop(store_in(room)) as image:
        assert_published(await image.put(data), room / IMAGE, data)
    assert (room / IMAGE).stat().st_blocks * 512 <= 1.05 * 16 * 256 * 1024
    (room / IMAGE).unlink()
    (room / f".{IMAGE}.mover-record").unlink()
    async with shop(store_in(room, thin=False)) as image:
        assert_published(await image.put(data), room / IMAGE, data)
    assert (room / IMAGE).stat().st_blocks * 512 >= len(data)


async def test_an_image_goes_to_the_highest_priority_that_has_room(room: Path) -> None:
    low, high, gone = room / "low", room / "high", room / "gone"
    low.mkdir()
    high.mkdir()
    async with shop(store_in(f"{low}:1", f"{high}:20", f"{gone}:300")) as image:
        assert_published(await image.put(b"x"), high / IMAGE, b"x")
    (high / IMAGE).unlink()
    async with shop(store_in(f"{low}:1", f"{high}:20")) as image:
        free = os.statvfs(room)
        size = 2 * free.f_bavail * free.f_frsize
        refused = assert_refused(await image.ask(Receive(IMAGE, "sha512", size=size)), Why.FULL)
        assert str(size) in refused.message
    assert listing(low) == []


async def test_a_store_without_its_directory_says_so(room: Path) -> None:
    async with shop(store_in(room / "gone")) as image:
        assert_refused(await image.ask(Receive(IMAGE, "sha512")), Why.GONE)


async def test_ids_that_are_no_file_names_are_refused(room: Path) -> None:
    for bad in ("../x", "a/b", ".hidden", ".", "..", "", "x\0y", "a" * 200):
        async with shop(store_in(room / "in"), bad) as image:
            (room / "in").mkdir(exist_ok=True)
            assert_refused(await image.ask(Receive(bad, "sha512")), Why.NOT_THERE)
    async with shop(store_in(room / "in"), "other") as image:
        assert_refused(await image.ask(Receive(IMAGE, "sha512")), Why.NOT_THERE)
    assert listing(room) == ["in"]


# -- going on ----------------------------------------------------------------------------------------------------


async def test_an_upload_goes_on_where_it_was_kept_and_its_checksums_are_those_of_the_whole(room: Path) -> None:
    data = noise(7 * MIB + 11)
    async with shop(store_in(room)) as image:
        session = await image.receive(size=len(data), keep=True)
        await image.write(session, data[: 3 * MIB])
        assert await image.ask(Keep(session)) == Kept(3 * MIB)
        assert await image.ask(Look(IMAGE)) == Kept(3 * MIB)
    async with shop(store_in(room)) as image:
        wrong = assert_refused(
            await image.ask(Receive(IMAGE, "sha512", "", 2 * MIB, len(data), True)), Why.WRONG_OFFSET
        )
        assert wrong.offset == 3 * MIB
        assert_refused(await image.ask(Receive(IMAGE, "sha512", "", 3 * MIB, len(data) + 1, True)), Why.WRONG_SIZE)
        session = await image.receive(offset=3 * MIB, size=len(data), keep=True)
        await image.write(session, data[3 * MIB :], 3 * MIB)
        assert_published(await image.ask(Publish(session)), room / IMAGE, data)
        assert await image.ask(Look(IMAGE)) == Kept(None)


async def test_a_lane_that_closes_keeps_what_may_be_gone_on_with_and_drops_the_rest(room: Path) -> None:
    data = noise(5 * MIB)
    for keep in (True, False):
        async with shop(store_in(room)) as image:
            session = await image.receive(size=len(data), keep=keep)
            await image.write(session, data[: 2 * MIB])
            image.lane.close("its front end is gone")
            image.process.lane = image.process.new_lane()
            image.process.attach(image.process.lane)
            await image.process.lane.opened()
            assert await image.ask(Look(IMAGE)) == Kept(2 * MIB if keep else None)
            if keep:
                session = await image.receive(offset=2 * MIB, size=len(data), keep=True)
                await image.write(session, data[2 * MIB :], 2 * MIB)
                assert_published(await image.ask(Publish(session)), room / IMAGE, data)
                (room / IMAGE).unlink()
                (room / f".{IMAGE}.mover-record").unlink()
    assert listing(room) == []


async def test_a_killed_worker_leaves_what_was_kept_and_its_successor_goes_on_or_begins_anew(room: Path) -> None:
    data = noise(6 * MIB)
    async with shop(store_in(room)) as image:
        for begins_anew in (False, True):
            session = await image.receive(size=len(data), keep=True)
            await image.write(session, data[: 2 * MIB])
            await image.ask(Keep(session))
            session = await image.receive(offset=2 * MIB, size=len(data), keep=True)
            await image.write(session, data[2 * MIB : 4 * MIB], 2 * MIB)
            image.process.kill()
            image.process.start()
            await image.lane.opened()
            assert_refused(await image.ask(Publish(session)), Why.GONE)
            assert await image.ask(Look(IMAGE)) == Kept(2 * MIB)
            offset = 0 if begins_anew else 2 * MIB
            session = await image.receive(offset=offset, size=len(data), keep=True)
            await image.write(session, data[offset:], offset)
            assert_published(await image.ask(Publish(session)), room / IMAGE, data)
            assert listing(room) == [f".{IMAGE}.mover-record", IMAGE]
            (room / IMAGE).unlink()


async def test_an_upload_that_is_forgotten_is_gone(room: Path) -> None:
    async with shop(store_in(room)) as image:
        session = await image.receive(size=9, keep=True)
        await image.write(session, b"1234")
        await image.roll_back(session, keep=True)
        assert await image.ask(Look(IMAGE)) == Kept(4)
        await image.ask(Forget(IMAGE))
        assert await image.ask(Look(IMAGE)) == Kept(None)
        assert listing(room) == []


async def test_what_was_published_and_never_registered_makes_room_for_the_next_try(room: Path) -> None:
    async with shop(store_in(room)) as image:
        assert isinstance(await image.put(b"first"), Published)
    async with shop(store_in(room)) as image:
        assert_published(await image.put(b"second"), room / IMAGE, b"second")
