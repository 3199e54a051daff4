"""A front end's library, put together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from config.settings import LibrarySettings
from config.store_settings import Store
from mover.front.visit import Door
from mover.library import rounds
from mover.library.carrier import make_carrier
from mover.library.jobs.places import HostPlaces
from mover.library.jobs.runner import Runner
from mover.library.leases import Leases
from mover.library.library import Library
from mover.library.records import Host


async def _in_background(library: Library, runner: Runner, leases: Leases) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(rounds.run(library, leases))
            group.create_task(leases.run())
            group.create_task(runner.run())
    finally:
        leases.close()


def make_library(settings: LibrarySettings, state_dir: str, stores: Sequence[Store], door: Door) -> Library:
    """The library of a front end; nothing is opened before a request needs it."""

    async def who_has(volume: str) -> list[Host]:
        return await library.ask(lambda registry: registry.hosts.having(volume))

    carrier = make_carrier(settings, stores, door, who_has)
    library = Library(settings, Path(state_dir), carrier, desk=door.link.questions, unix_socket=door.unix_socket)
    runner = Runner(library, HostPlaces(door, settings, state_dir, stores))
    library.nudge = runner.nudge
    library.housekeeping = partial(_in_background, library, runner, Leases(library))
    return library
