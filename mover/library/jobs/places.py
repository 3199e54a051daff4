"""Where bytes come from and go to that a job names: disks of this host, and URLs."""

from __future__ import annotations

from typing import Protocol

from config.export import Export
from config.export_url import ExportUrlError, parse_export
from config.places import NotAllowed, Places
from mover.control.gate import Gate
from mover.front.visit import Door
from mover.library.jobs.records import is_url
from mover.library.seam import DiskRefused, NotThere, StoreGone
from workers.lane.front_lane import LaneLost


class JobPlaces(Protocol):
    """Makes exports of what clients name."""

    async def disk(self, place: str, *, writes: bool) -> Export:
        """The disk that an NBD URL, or a ticket's id, names. Raises DiskRefused, and NotThere for no such ticket."""

    async def url(self, place: str) -> Export:
        """What an http or https URL names. Raises DiskRefused."""


class HostPlaces:
    """Disks within `[allow]`, and what tickets that are in force lead to. A JobPlaces."""

    def __init__(self, door: Door, state_dir: str) -> None:
        self._door = door
        self._state_dir = state_dir

    async def disk(self, place: str, *, writes: bool) -> Export:
        """The disk. The worker that opens it judges its path once more. Raises DiskRefused, NotThere, StoreGone."""
        if not is_url(place):
            return await self._of_ticket(place, writes)
        try:
            export = parse_export(place)
        except ExportUrlError as error:
            raise DiskRefused(str(error)) from error
        allow = self._door.allow
        places = Places(allow.files, allow.nbd_sockets, allow.tls_files, private=(self._state_dir,))
        gate = Gate(allow, places)
        try:
            gate.check_host(export)
            await gate.check(export)
        except NotAllowed as error:
            raise DiskRefused(str(error)) from error
        return export

    async def _of_ticket(self, ticket_id: str, writes: bool) -> Export:
        try:
            ticket = await self._door.link.ticket(ticket_id)
        except LaneLost as lost:
            raise StoreGone(f"the ticket cannot be looked for: {lost.reason}") from lost
        if ticket is None:
            raise NotThere("there is no such ticket, or no more")
        if not (ticket.write if writes else ticket.read):
            raise DiskRefused(f"the ticket does not allow to {'write' if writes else 'read'}")
        if ticket.token is not None or ticket.subject is not None:
            raise DiskRefused("the ticket wants a token or a certificate, which a job does not have: name a URL")
        return ticket.export

    async def url(self, place: str) -> Export:
        """What the URL names; its worker asks the filter of URLs."""
        raise DiskRefused("URLs are not read by this version")
