"""Which directories of file stores this host reaches, by the names that they bear."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from config.store_settings import FileStore, Store
from config.stores import directories
from config.volumes import volume_of


class Volumes:
    """Read once: a directory keeps its name. One that had none, or was not there, is looked at again."""

    def __init__(self, stores: Iterable[Store]) -> None:
        files = [store for store in stores if isinstance(store, FileStore)]
        self._nameless = {one.path for store in files for one in directories(store)}
        self._found: frozenset[str] = frozenset()

    async def here(self) -> frozenset[str]:
        """All of them."""
        if self._nameless:
            named = await asyncio.to_thread(_read, sorted(self._nameless))
            self._nameless -= named.keys()
            self._found |= set(named.values())
        return self._found


def _read(paths: list[str]) -> dict[str, str]:
    return {path: name for path in paths if (name := volume_of(path))}
