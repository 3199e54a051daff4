"""Who moves the library's bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from config.settings import LibrarySettings
from config.store_settings import Store
from mover.front.visit import Door
from mover.library.bytes import StoreCarrier
from mover.library.seam import Carrier, WhoHas


def make_carrier(settings: LibrarySettings, stores: Sequence[Store], door: Door, who_has: WhoHas) -> Carrier:
    """The carrier of a front end."""
    return StoreCarrier(door, settings, stores, _catalogue(settings.database), who_has)


def _catalogue(database: str) -> str:
    """A name of the registry that says nothing of it, the same on all hosts that call it the same."""
    host = os.uname().nodename if database.startswith("sqlite:") else ""
    return hashlib.sha256(f"{host} {database}".encode()).hexdigest()[:16]
