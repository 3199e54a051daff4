"""Whatever is lost, and whenever: every promise about the bytes holds. A failure prints its schedule and its seed."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulation.house import House, Loss
from tests.simulation.programs import TOGETHER, draw, requests
from tests.simulation.truth import Violation
from tests.simulation.world import Life, World

LOCAL = House(laziness=8)
REMOTE = House(local=False, block=4, most=2)

# Two writes that overlap, from two lanes; then a flush and a read by each.
SMALL = [
    [("put", "A", 0, 4, 11), ("flush",), ("read", 0, 8)],
    [("put", "B", 2, 4, 22), ("flush",), ("read", 0, 8)],
]
# In what order processes go on when nothing is lost.
ORDERS = range(3)


def run(house: House, order: int, losses: dict[int, list[Loss]]) -> int:
    """The small scenario, with losses at these points; how many points it had."""
    world = World(house, SMALL)
    world.losses = losses
    world.run(random.Random(order).randrange)
    return world.points


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("house", [LOCAL, REMOTE], ids=["local", "remote"])
def test_nothing_is_lost_at_any_step(house: House, order: int) -> None:
    """One loss, or two together, before every step and before every store into a ring or the ledger."""
    for point in range(1, run(house, order, {}) + 1):
        for together in TOGETHER:
            run(house, order, {point: together})


@pytest.mark.parametrize("then", [Loss.WORKER, Loss.SERVER, Loss.FRONT_END, Loss.CONNECTION])
def test_nothing_is_lost_when_the_successor_is_lost_too(then: Loss) -> None:
    """The worker dies at every step, and then something else at each of the next ones, while it is taken over."""
    for point in range(1, run(LOCAL, 0, {}) + 1):
        for later in range(point + 1, point + 24, 2):
            run(LOCAL, 0, {point: [Loss.WORKER], later: [then]})


@pytest.mark.parametrize("block", range(8))
def test_nothing_is_lost_in_any_of_thousands_of_drawn_schedules(block: int) -> None:
    """Other houses, more clients, more requests, up to six losses; the seed is all that a failure needs."""
    for seed in range(block * 500, block * 500 + 500):
        world, order = draw(seed)
        world.run(order.randrange)


def test_a_remote_server_that_is_lost_while_nobody_is_connected_cannot_be_told() -> None:
    """What NBD over TCP cannot promise: between a dead worker's fence and its successor's connection nobody looks."""
    world = World(House(local=False), [[("put", "A", 0, 4, 11), ("flush",)]])
    order = random.Random(0)
    while not any(write.acknowledged for write in world.truth.writes):
        world.step(order.randrange)
    world.lose(Loss.WORKER)
    while world.life is not Life.FENCED:
        world.step(order.randrange)
    assert world.server is not None
    world.server.die(keeps_cache=False)
    world.server = None
    with pytest.raises(Violation, match="A is lost, its transfer 1 flushed and was not told"):
        world.run(order.randrange)


class Choices:
    """A schedule as hypothesis draws and shrinks it: when it ends, the first option is taken."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = iter(numbers)

    def choose(self, count: int) -> int:
        """One of `count` options."""
        return next(self._numbers, 0) % count


lost = st.dictionaries(st.integers(1, 250), st.lists(st.sampled_from(Loss), min_size=1, max_size=2), max_size=4)
houses = st.builds(
    House,
    local=st.booleans(),
    block=st.sampled_from([1, 2, 4]),
    most=st.sampled_from([2, 4]),
    can_zero=st.booleans(),
    connections=st.sampled_from([1, 2]),
    laziness=st.sampled_from([1, 8]),
)


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(house=houses, seed=st.integers(0, 99), transfers=st.sampled_from([1, 3]), losses=lost, schedule=st.binary())
def test_nothing_is_lost_in_any_schedule_that_hypothesis_finds(
    house: House, seed: int, transfers: int, losses: dict[int, list[Loss]], schedule: bytes
) -> None:
    """The same, with a failure made as small as it can be."""
    rng = random.Random(seed)
    world = World(house, [requests(rng, client, house.size) for client in range(3)], transfers)
    world.losses = losses
    world.run(Choices(schedule).choose)
