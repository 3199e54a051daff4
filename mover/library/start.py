"""A front end's library, put together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from config.settings import LibrarySettings, Store
from mover.front.visit import Door
from mover.library import rounds
from mover.library.carrier import make_carrier
from mover.library.leases import Leases
from mover.library.library import Library


def make_library(settings: LibrarySettings, state_dir: str, stores: Sequence[Store], door: Door) -> Library:
    """The library of a front end; nothing is opened before a request needs it."""

    async def who_has(volume: str) -> list[str]:
        return [host.name for host in await library.ask(lambda registry: registry.hosts.having(volume))]

    carrier = make_carrier(settings, stores, door, who_has)
    library = Library(settings, Path(state_dir), carrier, desk=door.link, unix_socket=door.unix_socket)
    leases = Leases(library)

    async def housekeeping() -> None:
        try:
            await asyncio.gather(rounds.run(library, leases), leases.run())
        finally:
            leases.close()

    library.housekeeping = housekeeping
    return library
