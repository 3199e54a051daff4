"""Which kind of connection an export takes, and how one is made."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from workers.image.connection import Connection, Owner
from workers.image.loop import Loop
from workers.image.nbd_export import NbdConnection
from workers.messages import Serve

if TYPE_CHECKING:
    from workers.store.views.export import View

# What the kernel keeps itself.
FILES = ("file", "part")


class Connector:
    """Makes one worker's connections. What only some exports need is imported when one of them is served."""

    def __init__(self, generation: int, loop: Loop, owner: Owner) -> None:
        self._loop = loop
        self._owner = owner
        self._numbers = count(1)
        # A job that is submitted again must not meet a session of its predecessor's number.
        self._session_numbers = count(generation << 31)
        self._view: View | None = None

    def new(self, serve: Serve, connect_s: float) -> Connection:
        """One more, CLOSED still, that is to be READY within `connect_s`."""
        number = next(self._numbers)
        if serve.export.transport == "http":
            from workers.store.urls.export import UrlExport

            return UrlExport(number, serve.export, serve.urls, self._loop, self._owner)
        if serve.store is not None and serve.export.transport == "object":
            from workers.store.objects.export import ObjectExport

            return ObjectExport(number, serve.export, serve.store, self._loop, self._owner)
        if serve.store is not None:
            from workers.store.export import Around, StoreExport

            around = Around(serve.urls, serve.neighbours)
            numbers = self._session_numbers
            return StoreExport(number, serve.export, serve.store, around, self._loop, self._owner, numbers)
        if serve.export.transport == "view":
            return self._new_view(number, serve, connect_s)
        if serve.export.transport not in FILES:
            return NbdConnection(number, serve.export, serve.roots, serve.settings, self._loop, self._owner, connect_s)
        if not serve.export.whole_file:
            from workers.image.file_export import FileExport

            return FileExport(number, serve.export, serve.roots, self._loop, self._owner)
        from workers.image.whole_file import WholeFile

        return WholeFile(number, serve.export, serve.roots, self._loop, self._owner, self._session_numbers)

    def _new_view(self, number: int, serve: Serve, connect_s: float) -> Connection:
        from workers.store.views.export import View, ViewConnection

        if self._view is None:
            self._view = View(serve.export, self._loop)
        return ViewConnection(number, self._view, serve.settings, self._loop, self._owner, connect_s)
