"""A library without a store: the catalogue works, there is nowhere to put bytes."""

from __future__ import annotations

from collections.abc import Sequence

from sanic import Request

from mover.front.sanic_seam import Headers, Sent
from mover.library.records import Location
from mover.library.seam import Incoming, Kept, NotThere, Received, Span, Store, StoreAddDisabled


class Nowhere:
    """A Carrier that carries nothing."""

    async def receive(self, request: Request, incoming: Incoming) -> Received | Kept:
        """As Carrier says."""
        raise StoreAddDisabled("There is no store for images' data")

    async def send(
        self, request: Request, location: Location, size_bytes: int, span: Span, status: int, headers: Headers
    ) -> Sent:
        """As Carrier says."""
        raise NotThere("There is no store for images' data")

    async def remove(self, location: Location) -> None:
        """As Carrier says."""

    async def kept(self, image_id: str) -> int | None:
        """As Carrier says."""
        return None

    async def forget(self, image_id: str) -> None:
        """As Carrier says."""

    async def stores(self) -> Sequence[Store]:
        """As Carrier says."""
        return []
