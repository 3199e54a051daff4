"""Who may move data: two front ends' rules at one set of seats, as two processes would have them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator

import pytest

from config.settings import LimitSettings
from mover.front.admission import GRACE_S, Admission, Seat, Use
from mover.front.errors import RequestError
from mover.front.seats import House

Rooms = Callable[..., Admission]


@pytest.fixture
def front_end() -> Iterator[Rooms]:
    """Makes the admission of one more front end of the same host."""
    fd = os.memfd_create("seats")
    houses = []

    def make(**limits: object) -> Admission:
        houses.append(House(fd))
        return Admission(LimitSettings(**limits), houses[-1])  # type: ignore[arg-type]

    yield make
    for house in houses:
        house.close()
    os.close(fd)


async def enter(admission: Admission, key: str = "image", use: Use = Use.READ) -> Seat:
    """Enter, waiting if need be."""
    return admission.enter_nowait(key, use) or await admission.enter(key, use)


def run(work: Coroutine[None, None, None]) -> None:
    """Run to the end, in a loop of its own, with patience."""
    asyncio.run(asyncio.wait_for(work, 20))


def refused(admission: Admission, key: str = "image", use: Use = Use.READ) -> RequestError:
    """The refusal of a request that cannot enter."""

    async def try_it() -> None:
        await enter(admission, key, use)

    with pytest.raises(RequestError) as caught:
        run(try_it())
    return caught.value


def test_seats_of_an_image_are_counted_over_front_ends(front_end: Rooms) -> None:
    """Two readers are two, whichever front ends they came to; a seat that is left is free everywhere."""
    one, other = front_end(max_readers=2, mode="reject"), front_end(max_readers=2, mode="reject")
    first, second = one.enter_nowait("image", Use.READ), other.enter_nowait("image", Use.READ)
    assert first is not None
    assert second is not None
    assert one.enter_nowait("image", Use.READ) is None
    assert other.enter_nowait("image", Use.READ) is None
    one.leave(first)
    assert other.enter_nowait("image", Use.READ) is not None


def test_reads_writes_and_images_have_their_own_seats(front_end: Rooms) -> None:
    """A full house of readers keeps neither a writer out, nor the readers of another image."""
    admission = front_end(max_readers=1, max_writers=1, mode="reject")
    assert admission.enter_nowait("image", Use.READ)
    assert admission.enter_nowait("image", Use.READ) is None
    assert admission.enter_nowait("image", Use.WRITE)
    assert admission.enter_nowait("other", Use.READ)


def test_a_refusal_says_when_to_come_again(front_end: Rooms) -> None:
    """503 with Retry-After in seconds, the limit in its sentence."""
    admission = front_end(max_writers=1, mode="reject")
    assert admission.enter_nowait("image", Use.WRITE)
    error = refused(admission, use=Use.WRITE)
    assert (error.status, list(error.headers)) == (503, [("Retry-After", "1")])
    assert error.message == "too many writes at once (limit 1 of an image)"


def test_an_exclusive_image_is_busy(front_end: Rooms) -> None:
    """409 for whatever else is to be done, at every front end, and one is what OPTIONS says."""
    one, other = (front_end(exclusive=True, mode="reject") for _ in range(2))
    seat = one.enter_nowait("image", Use.ASK)
    assert seat is not None
    for use in (Use.READ, Use.WRITE, Use.ASK):
        error = refused(other, use=use)
        assert (error.status, error.message) == (409, "image busy")
    assert one.most(Use.READ) == one.most(Use.WRITE) == 1
    one.leave(seat)
    assert other.enter_nowait("image", Use.WRITE)


def test_a_seat_that_is_left_with_the_answer_is_not_missed(front_end: Rooms) -> None:
    """A client that asks another front end as soon as it has its answer is let in, though nobody may wait."""
    one, other = (front_end(max_writers=1, mode="reject") for _ in range(2))

    async def answered_then_asked() -> None:
        seat = one.enter_nowait("image", Use.WRITE)
        assert seat is not None
        asyncio.get_running_loop().call_soon(one.leave, seat)
        await enter(other, "image", Use.WRITE)

    run(answered_then_asked())


def test_a_seat_that_is_free_before_the_host_stands_still_is_not_missed(front_end: Rooms) -> None:
    """Looking again and giving up fall due at once then: whom a seat was given to is let in."""
    one, other = (front_end(max_writers=1, mode="reject") for _ in range(2))

    async def stood_still() -> None:
        seat = one.enter_nowait("image", Use.WRITE)
        assert seat is not None
        asyncio.get_running_loop().call_soon(one.leave, seat)
        asyncio.get_running_loop().call_soon(time.sleep, 2 * GRACE_S)
        await enter(other, "image", Use.WRITE)

    run(stood_still())


def test_what_moves_no_data_is_not_counted(front_end: Rooms) -> None:
    """Extents and flushes go by, unless an image is held exclusively; OPTIONS always does."""
    assert not front_end().counts(Use.ASK)
    assert front_end(exclusive=True).counts(Use.ASK)
    assert not front_end(exclusive=True).counts(Use.LOOK)


def test_the_host_has_its_own_limit(front_end: Rooms) -> None:
    """Over all images and front ends; OPTIONS says no more than it allows."""
    one, other = (front_end(host_readers=2, mode="reject") for _ in range(2))
    assert one.most(Use.READ) == 2
    assert one.most(Use.WRITE) == 64
    first = one.enter_nowait("a", Use.READ)
    assert other.enter_nowait("b", Use.READ)
    assert other.enter_nowait("c", Use.READ) is None
    assert first is not None
    one.leave(first)
    assert other.enter_nowait("c", Use.READ)


def test_the_next_in_line_gets_the_seat(front_end: Rooms) -> None:
    """First come, first served, and nobody who comes later goes before."""
    admission = front_end(max_readers=1)

    async def play() -> None:
        seat = await enter(admission)
        order: list[int] = []

        async def visit(number: int) -> None:
            own = await enter(admission)
            order.append(number)
            admission.leave(own)

        visits = [asyncio.ensure_future(visit(number)) for number in range(5)]
        await asyncio.sleep(0)
        assert admission.waiting == 5
        admission.leave(seat)
        assert admission.enter_nowait("image", Use.READ) is None
        await asyncio.gather(*visits)
        assert order == [0, 1, 2, 3, 4]

    run(play())


def test_images_get_the_hosts_seats_in_turn(front_end: Rooms) -> None:
    """Ten who wait for one image do not go before one who waits for another."""
    admission = front_end(host_readers=1)

    async def play() -> None:
        seat = await enter(admission, "first")
        order: list[str] = []

        async def visit(key: str) -> None:
            own = await enter(admission, key)
            order.append(key)
            admission.leave(own)

        visits = [asyncio.ensure_future(visit(key)) for key in ["busy"] * 10 + ["quiet"]]
        await asyncio.sleep(0)
        admission.leave(seat)
        await asyncio.gather(*visits)
        assert order.index("quiet") == 1

    run(play())


def test_a_seat_that_another_front_end_leaves_is_seen(front_end: Rooms) -> None:
    """Nobody tells; the one who waits looks again."""
    one, other = front_end(max_readers=1), front_end(max_readers=1)

    async def play() -> None:
        seat = await enter(one)
        waiting = asyncio.ensure_future(enter(other))
        await asyncio.sleep(0)
        assert other.waiting == 1
        one.leave(seat)
        other.leave(await waiting)
        assert other.waiting == 0

    run(play())


def test_a_wait_has_an_end(front_end: Rooms) -> None:
    """503 with Retry-After when nobody leaves in time; the line is empty then."""
    admission = front_end(max_readers=1, wait_s=0.05)
    assert admission.enter_nowait("image", Use.READ)
    error = refused(admission)
    assert (error.status, list(error.headers)) == (503, [("Retry-After", "1")])
    assert "0.05 s" in error.message
    assert admission.waiting == 0


def test_a_client_that_leaves_the_line_takes_no_seat_with_it(front_end: Rooms) -> None:
    """Neither while it waits, nor in the moment between being given a seat and taking it."""
    admission = front_end(max_readers=1)

    async def play() -> None:
        seat = await enter(admission)
        leaving, lucky = asyncio.ensure_future(enter(admission)), asyncio.ensure_future(enter(admission))
        await asyncio.sleep(0)
        admission.leave(seat)  # `leaving` has the seat now, and has not run yet
        leaving.cancel()
        admission.leave(await lucky)
        assert admission.waiting == 0
        assert admission.enter_nowait("image", Use.READ)

    run(play())


def test_a_higher_limit_lets_in_who_waits(front_end: Rooms) -> None:
    """A reload's limits are in force at once, of the image and of the host."""
    admission = front_end(max_readers=1, host_readers=1)

    async def play() -> None:
        await enter(admission)
        waiting = [asyncio.ensure_future(enter(admission, key)) for key in ("image", "other")]
        await asyncio.sleep(0)
        admission.retune(LimitSettings(max_readers=2, host_readers=3))
        await asyncio.gather(*waiting)
        assert admission.waiting == 0

    run(play())


def test_seats_taken_under_a_limit_that_is_gone_are_given_back(front_end: Rooms) -> None:
    """Limits that go and come again while requests are inside lose no seat, and lower ones wait for those inside."""
    one, other = (front_end(host_readers=2, mode="reject") for _ in range(2))
    seats = [one.enter_nowait("image", Use.READ) for _ in range(2)]
    for limits in (LimitSettings(mode="reject"), LimitSettings(mode="reject", host_readers=1)):
        one.retune(limits)
        other.retune(limits)
    assert other.enter_nowait("image", Use.READ) is None
    for seat in seats:
        assert seat is not None
        one.leave(seat)
    assert other.enter_nowait("image", Use.READ)


def test_a_front_end_that_dies_leaves_its_seats(front_end: Rooms) -> None:
    """Its locks die with it, be it killed at whatever instruction."""
    fd = os.memfd_create("seats")
    code = f"from mover.front.seats import House, row_of; House({fd}).lock(row_of('image')); print(flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", code], pass_fds=[fd], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )  # fmt: skip
    house = House(fd)
    admission = Admission(LimitSettings(max_readers=1), house)
    assert child.stdout is not None
    assert child.stdin is not None
    with child.stdout, child.stdin:
        child.stdout.readline()
        assert admission.enter_nowait("image", Use.READ) is None
        child.kill()
        child.wait()
    assert admission.enter_nowait("image", Use.READ)
    house.close()
    os.close(fd)
