"""Bytes a second in shared memory, with a clock of the test's: what is taken in a time, and by whom."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext

import pytest

from mover.front.rates import _BUCKETS, _FLOWS, IDLE_NS, RATES_BYTES, SECOND_NS, SLACK_NS, Limits, Rates, key_of

MIB = 1 << 20
STEP = 64 * 1024
# The machine runs for a while already.
START_S = 1000.0


def new_rates() -> Rates:
    return Rates(memoryview(bytearray(RATES_BYTES)).cast("q"), nullcontext())


class Mover:
    """Somebody who always wants more: a ticket of an image, and how much it has moved."""

    def __init__(self, ticket: str, image: str, limits: Limits, begins_s: float = 0.0, ends_s: float = 1e6) -> None:
        self.keys = key_of("ticket", ticket), key_of("image", image)
        self.limits = limits
        self.begins, self.ends = int((START_S + begins_s) * SECOND_NS), int((START_S + ends_s) * SECOND_NS)
        self.next = self.begins
        self.moved = 0


def run(rates: Rates, movers: list[Mover], seconds: float, start_s: float = 0.0) -> None:
    """Each asks again as soon as it is told to, and moves at once what it may."""
    now = int((START_S + start_s) * SECOND_NS)
    end = now + int(seconds * SECOND_NS)
    while now < end:
        for mover in movers:
            if mover.next <= now < mover.ends:
                wait = rates.take(now, STEP, *mover.keys, mover.limits)
                if not wait:
                    mover.moved += STEP
                mover.next = now + wait
        now = max(now, min((mover.next for mover in movers if mover.ends > now), default=end))


@pytest.mark.parametrize(
    "limits", [Limits(ticket=MIB), Limits(image=MIB), Limits(host=MIB), Limits(5 * MIB, MIB, 2 * MIB)]
)
@pytest.mark.parametrize("clients", [1, 7])
def test_in_a_time_as_much_is_moved_as_the_lowest_limit_allows(limits: Limits, clients: int) -> None:
    """But for what was not used just before, and the last step; whoever and however many they are."""
    movers = [Mover("t", "i", limits) for _ in range(clients)]
    run(new_rates(), movers, 10)
    moved = sum(mover.moved for mover in movers)
    assert 10 * MIB <= moved <= 10 * MIB + MIB * SLACK_NS // SECOND_NS + 2 * STEP


def test_two_tickets_have_a_limit_each_and_share_their_images() -> None:
    movers = [Mover(name, "i", Limits(ticket=4 * MIB, image=6 * MIB)) for name in ("a", "b")]
    run(new_rates(), movers, 10)
    assert sum(mover.moved for mover in movers) == pytest.approx(60 * MIB, rel=0.02)
    alone = Mover("c", "i", Limits(ticket=4 * MIB, image=6 * MIB))
    run(new_rates(), [alone], 10)
    assert alone.moved == pytest.approx(40 * MIB, rel=0.02)


@pytest.mark.parametrize("crowd", [1, 2, 16])
def test_images_share_the_hosts_limit_whoever_has_more_clients(crowd: int) -> None:
    """An image with sixteen clients has no more than one with a single client."""
    limits = Limits(host=8 * MIB)
    movers = [Mover(f"t{number}", "crowded", limits) for number in range(crowd)] + [Mover("t", "lonely", limits)]
    run(new_rates(), movers, 10)
    found = Counter(crowded=sum(mover.moved for mover in movers[:-1]), lonely=movers[-1].moved)
    assert found.total() == pytest.approx(80 * MIB, rel=0.02)
    assert found["lonely"] == pytest.approx(40 * MIB, rel=0.05)


def test_what_an_image_does_not_want_is_the_others() -> None:
    """One is held by a limit of its own; three others share what is left."""
    slow = Mover("slow", "slow", Limits(ticket=MIB, host=10 * MIB))
    fast = [Mover(name, name, Limits(host=10 * MIB)) for name in ("a", "b", "c")]
    run(new_rates(), [slow, *fast], 10)
    assert slow.moved == pytest.approx(10 * MIB, rel=0.05)
    for mover in fast:
        assert mover.moved == pytest.approx(30 * MIB, rel=0.05)


def test_an_image_that_leaves_holds_nobody_up_and_one_that_comes_has_no_claims() -> None:
    """Whoever was not there before does not catch up on those who were."""
    limits = Limits(host=8 * MIB)
    stays, leaves = Mover("a", "a", limits), Mover("b", "b", limits, ends_s=5)
    comes = Mover("c", "c", limits, begins_s=5)
    run(new_rates(), [stays, leaves, comes], 10)
    assert leaves.moved == pytest.approx(20 * MIB, rel=0.05)
    assert comes.moved == pytest.approx(20 * MIB, rel=0.05)
    assert stays.moved == pytest.approx(40 * MIB, rel=0.05)


def test_a_rate_that_changes_is_in_force_with_the_next_step() -> None:
    rates, mover = new_rates(), Mover("t", "i", Limits(ticket=MIB))
    run(rates, [mover], 5)
    mover.limits = Limits(ticket=20 * MIB)
    run(rates, [mover], 5, start_s=5)
    assert mover.moved == pytest.approx(105 * MIB, rel=0.02)
    mover.limits = Limits(ticket=MIB)
    run(rates, [mover], 5, start_s=10)
    assert mover.moved == pytest.approx(110 * MIB, rel=0.02)


def test_what_is_given_back_can_be_taken_again() -> None:
    rates, keys, limits = new_rates(), (key_of("ticket", "t"), key_of("image", "i")), Limits(MIB, MIB, MIB)
    now = 10 * SECOND_NS
    assert rates.take(now, MIB, *keys, limits) == 0
    assert rates.take(now, STEP, *keys, limits) > 0
    rates.give_back(now, MIB, *keys, limits)
    assert rates.take(now, STEP, *keys, limits) == 0


def test_more_images_and_tickets_than_there_is_room_for_are_still_limited() -> None:
    """Some share a bucket then, or a turn: none moves more than it may."""
    rates, now = new_rates(), 100 * SECOND_NS
    names = [str(number) for number in range(2 * _BUCKETS)]
    for name in names:
        rates.take(now, STEP, key_of("ticket", name), key_of("image", name), Limits(ticket=MIB))
    again = [rates.take(now, STEP, key_of("ticket", name), 1, Limits(ticket=MIB)) > 0 for name in names]
    assert sum(again) > _BUCKETS // 2
    movers = [Mover(name, name, Limits(host=100 * MIB)) for name in names[: _FLOWS + 10]]
    run(new_rates(), movers, 0.2)
    assert sum(mover.moved for mover in movers) == pytest.approx(25 * MIB, rel=0.05)


def test_places_of_those_who_are_long_gone_are_used_again() -> None:
    words = memoryview(bytearray(RATES_BYTES)).cast("q")
    rates = Rates(words, nullcontext())
    for number in range(4 * _BUCKETS):
        now = (number + 10) * IDLE_NS
        assert (
            rates.take(now, STEP, key_of("ticket", str(number)), key_of("image", str(number)), Limits(MIB, 0, MIB)) == 0
        )


def test_without_limits_nothing_is_written() -> None:
    memory = bytearray(RATES_BYTES)
    rates = Rates(memoryview(memory).cast("q"), nullcontext())
    assert rates.take(5, 1 << 40, 7, 8, Limits()) == 0
    assert not any(memory)
