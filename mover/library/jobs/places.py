"""Where bytes come from and go to that a job names: disks of this host, and URLs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from config.allow import roots_in
from config.export import Export
from config.export_url import ExportUrlError, parse_export
from config.roots import NotAllowed
from config.settings import LibrarySettings
from config.store_settings import Store
from config.url_rules import UrlRefused, parse_url, rules_of
from mover.control.gate import Gate
from mover.front.visit import Door
from mover.library.jobs.records import is_url
from mover.library.seam import Disk, DiskRefused, Ticketed
from mover.library.seam import NotAllowed as UrlNotAllowed


class JobPlaces(Protocol):
    """Makes exports of what clients name."""

    async def disk(self, place: str) -> Disk:
        """The disk that an NBD URL, or a ticket's id, names. Raises DiskRefused."""

    def url(self, place: str) -> Export:
        """What an http or https URL names. Raises NotAllowed of the seam."""


class HostPlaces:
    """Disks within `[allow]`, and what tickets that are in force lead to. A JobPlaces."""

    def __init__(self, door: Door, settings: LibrarySettings, state_dir: str, stores: Sequence[Store]) -> None:
        self._door = door
        self._rules = rules_of(settings)
        self._state_dir = state_dir
        self._stores = stores

    async def disk(self, place: str) -> Disk:
        """The disk. The worker that opens it judges its path once more. Raises DiskRefused."""
        if not is_url(place):
            return Ticketed(place)
        try:
            export = parse_export(place)
        except ExportUrlError as error:
            raise DiskRefused(str(error)) from error
        allow = self._door.allow
        roots = roots_in(allow, self._state_dir, self._stores)
        gate = Gate(allow, roots)
        try:
            gate.check_host(export)
            await gate.check(export)
        except NotAllowed as error:
            raise DiskRefused(str(error)) from error
        return export

    def url(self, place: str) -> Export:
        """What the URL names; addresses of names are judged by its worker. Raises NotAllowed of the seam."""
        try:
            parse_url(place, self._rules)
        except UrlRefused as error:
            raise UrlNotAllowed(str(error)) from error
        return Export("http", path=place)
