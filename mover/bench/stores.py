"""The row `stores`: the library without HTTP in between. Each part sets up what it needs, and has its own module."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mover.bench.bridges import bridges
from mover.bench.contest import Contest
from mover.bench.hauls import hauls
from mover.bench.objects import objects
from mover.bench.row import Bench

PARTS: Sequence[Callable[[Bench], list[Contest]]] = (hauls, objects, bridges)


def stores(bench: Bench) -> list[Contest]:
    """The contests of all parts."""
    return [contest for part in PARTS for contest in part(bench)]
