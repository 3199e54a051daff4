"""A front end's library, put together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from config.settings import LibrarySettings, Store
from mover.front.visit import Door
from mover.library import rounds
from mover.library.carrier import make_carrier
from mover.library.library import Library


def make_library(settings: LibrarySettings, state_dir: str, stores: Sequence[Store], door: Door) -> Library:
    """The library of a front end; nothing is opened before a request needs it."""
    library = Library(
        settings, Path(state_dir), make_carrier(settings, stores, door), desk=door.link, unix_socket=door.unix_socket
    )
    library.housekeeping = partial(rounds.run, library)
    return library
