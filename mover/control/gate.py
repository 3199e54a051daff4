"""Whether a ticket may name its export: asked for every ticket that is installed, whoever installs it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence

from config.allow import check_export, check_host, roots_of
from config.errors import shown
from config.export import Export
from config.log import facts
from config.roots import NotAllowed, Roots
from config.settings import AllowSettings, Settings
from config.store_settings import Store
from config.stores import is_of_stores

log = logging.getLogger(__name__)

# A file system that does not say so soon where a link leads (a dead NFS server) is not waited for.
LOOK_S = 5.0
# At once. Each is a thread, and may be held for ever.
LOOKS_MOST = 16


class Gate:
    """The allow-lists of the settings."""

    def __init__(self, allow: AllowSettings, roots: Roots, stores: Sequence[Store] = ()) -> None:
        self._allow = allow
        self._stores = stores
        self._roots = roots
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(LOOKS_MOST)

    def retune(self, settings: Settings) -> None:
        """Other lists are in force."""
        self._allow, self._roots = settings.allow, roots_of(settings)

    def check_host(self, export: Export) -> None:
        """What can be said without looking at paths, which are looked at again when they are opened.

        Raises NotAllowed.
        """
        if export.of_library and not is_of_stores(export, self._stores):
            raise NotAllowed(f"export {shown(export.key)}", "store", "it is no image of any store")
        if export.transport == "tcp":
            check_host(export.host, self._allow.nbd_hosts)

    async def check(self, export: Export) -> None:
        """Look where its paths lead. Raises NotAllowed."""
        try:
            if export.of_library:
                self.check_host(export)
            else:
                await self._look(export)
        except NotAllowed as refused:
            log.warning("ticket refused", extra=facts(what=refused.what, setting=refused.key, why=refused.why))
            raise

    async def _look(self, export: Export) -> None:
        done: asyncio.Future[NotAllowed | None] = self._loop.create_future()
        try:
            async with asyncio.timeout(LOOK_S):
                await self._room.acquire()
                # A thread of its own: one that is held must not keep others, or the end of this process, waiting.
                threading.Thread(
                    target=self._follow, args=(export, (self._allow, self._roots), done), daemon=True
                ).start()
                refused = await asyncio.shield(done)
        except TimeoutError:
            why = f"its file system has not answered for {LOOK_S:g} s"
            raise NotAllowed(f"export {shown(export.key)}", "allow", why) from None
        if refused is not None:
            raise refused

    def _follow(
        self, export: Export, lists: tuple[AllowSettings, Roots], done: asyncio.Future[NotAllowed | None]
    ) -> None:
        """In a thread."""
        found = None
        try:
            check_export(export, *lists)
        except NotAllowed as refused:
            found = refused
        except OSError as error:
            found = NotAllowed(f"export {shown(export.key)}", "allow", str(error.strerror))
        try:
            self._loop.call_soon_threadsafe(self._followed, done, found)
        except RuntimeError:
            pass  # the loop has ended meanwhile

    def _followed(self, done: asyncio.Future[NotAllowed | None], found: NotAllowed | None) -> None:
        self._room.release()
        if not done.done():
            done.set_result(found)
