"""What all workers share, and where each of them may reach."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from config.export import Export
from config.roots import Roots
from config.settings import Settings
from config.store_settings import FileStore, Store
from mover.serve.lanes import LaneBook
from mover.serve.ledgers import Ledgers
from mover.serve.spare import Spare


@dataclass
class House:
    """What all workers share; a reload changes the settings.

    `named` are the keys of the settings' own images, whose paths may lead anywhere; those of tickets to `roots` only.
    """

    spare: Spare
    settings: Settings
    lanes: LaneBook
    ledgers: Ledgers
    generations: Iterator[int]  # of every start and every attachment, always increasing
    named: frozenset[str]
    roots: Roots

    def roots_for(self, export: Export) -> Roots | None:
        """Where its paths may lead: a library's files and the settings' own images are named by nobody else."""
        own = export.of_library or export.key in self.named
        return None if own else self.roots

    def neighbours_of(self, export: Export) -> list[FileStore]:
        """The stores whose files may be copied into a store that takes images."""
        return [store for store in self.settings.store if isinstance(store, FileStore) and export.transport == "store"]

    def store_of(self, export: Export) -> Store | None:
        """Front ends name a store, and the configuration says where it is."""
        stores = [store for store in self.settings.store if store.id == export.name]
        return stores[0] if export.transport in ("store", "object") and stores else None
