"""A front end's library, put together."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from config.settings import LibrarySettings
from config.store_settings import Store
from mover.front.visit import Door
from mover.library import rounds
from mover.library.bytes.carrier import StoreCarrier
from mover.library.jobs.places import HostPlaces
from mover.library.jobs.runner import Runner
from mover.library.leases import Leases
from mover.library.library import Library
from mover.library.records import Host
from mover.library.seam import Carrier, WhoHas


def _catalogue(database: str) -> str:
    """A name of the registry that says nothing of it, the same on all hosts that call it the same."""
    host = os.uname().nodename if database.startswith("sqlite:") else ""
    return hashlib.sha256(f"{host} {database}".encode()).hexdigest()[:16]


def make_carrier(settings: LibrarySettings, stores: Sequence[Store], door: Door, who_has: WhoHas) -> Carrier:
    """Who moves the bytes: a test has its own."""
    return StoreCarrier(door, settings, stores, _catalogue(settings.database), who_has)


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
