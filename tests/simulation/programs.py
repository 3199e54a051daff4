"""What clients do, and where something is lost: drawn from a seed, so that a failure can be run again."""

from __future__ import annotations

import random
from typing import Any

from tests.simulation.world import House, Loss, World

Request = tuple[Any, ...]
# More points than most runs have, so that some losses come near the end, and some never.
POINTS = 400


def draw(seed: int) -> World:
    """A house, its clients and its losses."""
    rng = random.Random(seed)
    house = House(
        local=rng.random() < 0.7,
        block=rng.choice([1, 1, 2, 4]),
        most=rng.choice([2, 4]),
        can_zero=rng.random() < 0.7,
        connections=rng.choice([1, 1, 2]),
    )
    clients = rng.choice([2, 3])
    transfers = rng.choice([1, 3])
    world = World(house, [requests(rng, client, house.size) for client in range(clients)], transfers)
    for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 4, 6])):
        world.losses.setdefault(rng.randrange(POINTS), []).append(rng.choice(list(Loss)))
    return world


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
    name = f"{'ABC'[client]}{number}"
    if kind == "put":
        return kind, name, offset, length, 16 * (client + 1) + number
    return (kind, name, offset, length) if kind == "zero" else (kind, offset, length) if kind == "read" else (kind,)


def chooser(seed: int) -> random.Random:
    """Who goes on next, apart from what was drawn before."""
    return random.Random(f"steps {seed}")
