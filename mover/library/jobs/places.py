"""Where bytes come from and go to that a job names: disks of this host, and URLs."""

from __future__ import annotations

from typing import Protocol

from config.export import Export


class Places(Protocol):
    """Makes exports of what clients name."""

    async def export(self, place: str, *, writes: bool) -> Export:
        """The disk that an NBD URL, or a ticket's id, names. Raises DiskRefused, and NotThere for no such ticket."""

    async def url(self, place: str) -> Export:
        """What an http or https URL names. Raises DiskRefused."""
