"""The library as a front end holds it: the registry in threads, the carrier, and who asks."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from config.log import facts
from config.settings import LibrarySettings
from mover.library import liveness
from mover.library.authority import Authority, TokenAuthority
from mover.library.callers import Caller, may_see
from mover.library.errors import ApiError, no_image
from mover.library.records import Change, Host, ImageRecord, Location, Member
from mover.library.registry import schema
from mover.library.registry.errors import RegistryError
from mover.library.seam import Carrier, TicketDesk
from mover.library.states import State

if TYPE_CHECKING:
    from mover.library.registry.registry import Registry

log = logging.getLogger(__name__)

T = TypeVar("T")

# A change that others overtake is made again to what they made of the image, so often.
CHANGES = 10
HOST_FILE = "library-host"
# How a holder begins that is a transfer and no process.
TRANSFER = "transfer."
# A host that is cut off for a while has clients who read on meanwhile: their tickets outlive that.
DOWNLOADS_DEAD_S = 86400.0
BEGIN_AGAIN_S = 5.0
# Jobs put themselves back within moments, where their stores answer.
REST_S = 3.0
# How long a statement whose answer was lost may still be under way in the database.
SETTLE_AGAIN_S = 120.0


class Unsettled(NamedTuple):
    """The end of an upload, to be told to the registry until then at least."""

    image_id: str
    from_states: frozenset[State]
    state: State
    until: float


class Library:
    """One front end's library. SQLAlchemy is loaded with the first request that needs it: it takes 0.2 s and 25 MB."""

    def __init__(
        self,
        settings: LibrarySettings,
        state_dir: Path,
        carrier: Carrier,
        authority: Authority | None = None,
        desk: TicketDesk | None = None,
        unix_socket: str | None = None,
    ) -> None:
        self.settings = settings
        self.carrier = carrier
        self.authority: Authority = authority or TokenAuthority(
            Path(settings.token_file), settings.default_tenant, settings.anonymous
        )
        self.desk = desk
        self.unix_socket = unix_socket
        self.state_dir = state_dir
        # Each waits for the database with a connection of its own.
        self._threads = ThreadPoolExecutor(settings.database_connections, "library")
        self._opening: asyncio.Future[Registry] | None = None
        self._host = ""
        self._unsettled: dict[str, Unsettled] = {}
        # What is done in the background as soon as the registry is open.
        self.housekeeping: Callable[[], Coroutine[Any, Any, None]] | None = None
        self._housekeeper: asyncio.Task[None] | None = None
        # Tells who runs jobs that there is something to do.
        self.nudge: Callable[[], None] = lambda: None
        self._beginning: asyncio.Task[None] | None = None

    # -- the registry, in threads ------------------------------------------------------------------------------

    async def ask(self, question: Callable[[Registry], T]) -> T:
        """What the registry answers, in a thread: `await library.ask(lambda registry: registry.get(image_id))`."""
        patience_s = self.settings.database_timeout_s
        try:
            async with asyncio.timeout(patience_s):
                registry = await self._registry()
                return await asyncio.get_running_loop().run_in_executor(self._threads, question, registry)
        except TimeoutError:
            raise RegistryError(f"the database has not answered within {patience_s:g} s") from None

    async def _registry(self) -> Registry:
        """The registry, opened by the first who asks; those who ask meanwhile wait for it."""
        opening = self._opening
        if opening is None:
            opening = self._opening = asyncio.get_running_loop().run_in_executor(self._threads, self._open)
        try:
            registry = await asyncio.shield(opening)
        except Exception:
            if self._opening is opening:
                self._opening = None  # the next request tries again
            raise
        if self._housekeeper is None and self.housekeeping is not None:
            self._housekeeper = asyncio.get_running_loop().create_task(self.housekeeping(), context=Context())
        return registry

    def begin(self) -> None:
        """Go on with the jobs that an earlier service has left, if there are any: nobody may ask for long.

        Where hosts share the registry it is opened in any case: this host's lease is to be renewed.
        """
        self._beginning = asyncio.get_running_loop().create_task(self._begin())

    async def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(self._threads, schema.may_have_jobs, self.settings.database):
            try:
                await self._registry()
                return
            except RegistryError as error:
                log.warning("the catalogue cannot be opened yet", extra=facts(reason=str(error)))
            await asyncio.sleep(BEGIN_AGAIN_S)

    async def rest(self) -> None:
        """End what is done in the background, and begin nothing of it again; clients are still answered.

        Whoever waits for a store that does not answer is left behind: to others it is as if this process had died.
        """
        self.housekeeping = None
        tasks = {task for task in (self._beginning, self._housekeeper) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=REST_S)
            if late:
                log.warning("what is done in the background does not end", extra=facts(deadline_s=REST_S))

    async def close(self) -> None:
        """Close the registry; `rest` comes first."""
        if self._opening is not None and self._opening.done() and self._opening.exception() is None:
            self._opening.result().close()
        self._threads.shutdown(wait=False)

    def _open(self) -> Registry:
        if not schema.is_current(self.settings.database) and schema.is_sqlite(self.settings.database):
            try:
                schema.migrate(self.settings.database)
            except schema.MigrationFailed as error:
                log.error("the library's database cannot be made", extra=facts(reason=str(error)))
                raise RegistryError(str(error)) from error
        from mover.library.registry.registry import Registry

        self._host = _host(self.state_dir)
        registry = Registry(self.settings.database, connections=self.settings.database_connections)
        try:
            if not schema.is_sqlite(self.settings.database):
                # Before it holds anything: whoever holds something has a lease.
                registry.hosts.renew(Host(self._host, os.uname().nodename), keeps_volumes=True)
            release_dead(registry, self._host)
        except BaseException:
            registry.close()
            raise
        return registry

    @property
    def host(self) -> str:
        """This host, as the registry knows it. Known once the registry has been asked."""
        return self._host

    @property
    def holder(self) -> str:
        """This process, as the registry knows who receives an image. Known once the registry has been asked."""
        return f"{self._host}/{liveness.own_identity()}"

    async def release_dead(self) -> int:
        """What dead front ends of this host were receiving may be sent again; how many images."""
        return await self.ask(lambda registry: release_dead(registry, self._host))

    def settle_later(
        self, image_id: str, token: str, state: State, from_states: frozenset[State] = frozenset({State.SAVING})
    ) -> None:
        """An upload has ended, and the registry could not be told that its image goes to `state`."""
        self._unsettled[token] = Unsettled(image_id, from_states, state, time.monotonic() + SETTLE_AGAIN_S)

    async def settle(self) -> None:
        """Tell it now. Raises RegistryError; what could not be told is told the next time."""
        for token, one in list(self._unsettled.items()):
            moved = await self.ask(partial(_end_upload, one=one, token=token))
            # What it was told last may still be on its way: so for a while it is told again.
            if moved or time.monotonic() > one.until:
                del self._unsettled[token]

    async def renew(self) -> int:
        """This host is there, with the volumes that it reaches; how many hosts are."""
        host = Host(self._host, os.uname().nodename, tuple(await self.carrier.volumes()))

        def renew(registry: Registry) -> int:
            registry.hosts.renew(host)
            return registry.hosts.count(self.settings.host_dead_s)

        return await self.ask(renew)

    async def release_dead_hosts(self) -> int:
        """What was being received by hosts that are dead may be sent again; how many images."""
        dead_s = self.settings.host_dead_s
        return await self.ask(lambda registry: release_dead_hosts(registry, self._host, dead_s))

    async def sweep(self, shared: bool = True) -> None:
        """Have the stores remove what crashes have left in them. Raises CarrierError."""

        async def wanted(image_id: str, location: Location, upload: str) -> bool:
            return await self.ask(lambda registry: registry.wanted(image_id, location, upload))

        await self.carrier.sweep(wanted, shared)

    # -- what all views ask -----------------------------------------------------------------------------------

    async def image(self, caller: Caller, image_id: str) -> ImageRecord:
        """An image that the caller may see; admins see deleted ones. Raises ApiError 404."""
        image, _ = await self.image_and_membership(caller, image_id)
        return image

    async def image_and_membership(self, caller: Caller, image_id: str) -> tuple[ImageRecord, Member | None]:
        """An image that the caller may see, and the caller's membership in it. Raises ApiError 404."""
        image, member = await self.ask(lambda registry: _look(registry, image_id, caller.tenant))
        if image is None or not may_see(caller, image, member):
            raise no_image(image_id)
        return image, member

    async def change(self, image: ImageRecord, decide: Callable[[ImageRecord], Change | None]) -> ImageRecord:
        """Change an image to what `decide` makes of it, again if it changes meanwhile; None changes nothing.

        `decide` may raise. Raises ApiError 404 if the image goes, 409 if it never stands still.
        """
        for _ in range(CHANGES):
            change = decide(image)
            if change is None:
                return image
            changed = await self.ask(partial(_change, image=image, change=change))
            if changed is not None:
                return changed
            again = await self.ask(partial(_get, image_id=image.id))
            if again is None or again.deleted_at_us is not None:
                raise no_image(image.id)
            image = again
        raise ApiError(409, f"Image {image.id} is being changed by others")


def release_dead(registry: Registry, host: str) -> int:
    """Queue again what front ends of this host were receiving that are no more."""
    count = 0
    for holder in registry.holders():
        of, _, process = holder.partition("/")
        # A transfer holds an image whoever dies; its own rounds end it (bridge.py).
        if of == host and not process.startswith(TRANSFER) and not liveness.is_alive(process):
            count += registry.release(holder)
            log.info("uploads of a front end that is gone may be sent again", extra=facts(holder=holder))
    return count


def release_dead_hosts(registry: Registry, host: str, dead_s: float) -> int:
    """Queue again what hosts but this one were receiving that have not been seen for so long."""
    count = 0
    holders = [holder for holder in registry.holders() if holder.partition("/")[0] != host]
    dead = registry.hosts.dead({holder.partition("/")[0] for holder in holders}, dead_s) if holders else set()
    for holder in holders:
        if holder.partition("/")[0] in dead:
            count += registry.release(holder, host_dead_s=dead_s)
            log.warning("uploads of a host that is gone may be sent again", extra=facts(holder=holder))
    registry.tell_waiting(host, dead_s)
    for of in registry.transfers.hosts() - {host}:
        ended = registry.transfers.remove_of_dead(of, True, dead_s)
        ended += registry.transfers.remove_of_dead(of, False, max(dead_s, DOWNLOADS_DEAD_S))
        if ended:
            log.warning("transfers of a host that is gone were ended", extra=facts(host=of, transfers=ended))
    return count


def _end_upload(registry: Registry, one: Unsettled, token: str) -> bool:
    return registry.move(one.image_id, one.from_states, one.state, held_by=token) is not None


def _get(registry: Registry, image_id: str) -> ImageRecord | None:
    return registry.get(image_id)


def _look(registry: Registry, image_id: str, tenant: str | None) -> tuple[ImageRecord | None, Member | None]:
    image = registry.get(image_id)
    member = None if image is None or tenant is None else registry.member(image_id, tenant)
    return image, member


def _change(registry: Registry, image: ImageRecord, change: Change) -> ImageRecord | None:
    return registry.change(image, change)


def _host(state_dir: Path) -> str:
    """A name of this installation that no other host has: several may share a registry."""
    file = state_dir / HOST_FILE
    try:
        with file.open("x", encoding="ascii") as new:
            new.write(secrets.token_hex(8))
    except FileExistsError:
        pass
    return file.read_text(encoding="ascii").strip()
