"""What clients do, and where something is lost: drawn from a seed, so that a failure can be run again."""

from __future__ import annotations

import random

from tests.simulation.front import Request
from tests.simulation.house import House, Loss
from tests.simulation.world import World

# More points than most runs have, so that some losses come near the end, and some never.
POINTS = 400

# What is lost at one point: one thing, or two at once.
TOGETHER = [
    [Loss.WORKER],
    [Loss.REPLY_TO_FENCE, Loss.WORKER],
    [Loss.FRONT_END],
    [Loss.OTHER_FRONT_END],
    [Loss.FRONT_END, Loss.WORKER],
    [Loss.CLIENT],
    [Loss.CLIENT, Loss.WORKER],
    [Loss.SERVER],
    [Loss.SERVER_KEEPS_CACHE],
    [Loss.WORKER_AND_SERVER],
    [Loss.CONNECTION],
    [Loss.REPLY_TO_FENCE, Loss.CONNECTION],
]


def draw(seed: int) -> tuple[World, random.Random]:
    """A house, its clients and its losses; and what decides who goes on next."""
    rng = random.Random(seed)
    house = House(
        local=rng.random() < 0.7,
        block=rng.choice([1, 1, 2, 4]),
        most=rng.choice([2, 4]),
        can_zero=rng.random() < 0.7,
        connections=rng.choice([1, 1, 2]),
        laziness=rng.choice([1, 8, 16]),
    )
    clients = rng.choice([2, 3, 4, 6])
    transfers = rng.choice([1, 3])
    world = World(house, [requests(rng, client, house.size) for client in range(clients)], transfers)
    for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 4, 6])):
        point = rng.randrange(POINTS)
        world.losses.setdefault(point, []).extend(rng.choice(TOGETHER))
        if rng.random() < 0.3:  # and the successor, while it takes over
            world.losses.setdefault(point + rng.randrange(1, 60), []).append(Loss.WORKER)
    return world, random.Random(f"steps {seed}")


def requests(rng: random.Random, client: int, size: int) -> list[Request]:
    """A few requests, then what tells whether they were done: two flushes and a read of everything."""
    return [request(rng, client, number, size) for number in range(rng.randrange(2, 6))] + [
        ("flush",),
        ("flush",),
        ("read", 0, size),
    ]


def request(rng: random.Random, client: int, number: int, size: int) -> Request:
    kind = rng.choice(["put", "put", "put", "zero", "flush", "flush", "read"])
    offset = rng.randrange(size - 1)
    length = rng.randint(1, min(4, size - offset))
    name = f"{'ABCDEF'[client]}{number}"
    if kind == "put":
        return kind, name, offset, length, 16 * (client + 1) + number
    return (kind, name, offset, length) if kind == "zero" else (kind, offset, length) if kind == "read" else (kind,)
