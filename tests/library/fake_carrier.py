"""A Carrier for tests of the views: files in a directory, hashed in the loop, and no more than the seam asks for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sanic import Request

from mover.front import sanic_seam
from mover.front.sanic_seam import Headers, Sent
from mover.library import seam
from mover.library.records import Location
from mover.library.seam import Incoming, Kept, Received, Span, Store, Wanted

# A body that begins with this finds no room.
FULL = b"disk full"
QCOW2 = b"QFI\xfb"


class FakeCarrier:
    """Published files are named by the image's id, unfinished ones end with .part."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    async def receive(self, request: Request, incoming: Incoming) -> Received | Kept:
        """As Carrier says."""
        if incoming.store not in (None, "fake"):
            raise seam.UnknownStore(f"there is no store {incoming.store!r}")
        part = self._part(incoming.image.id)
        kept = part.stat().st_size if part.exists() else 0
        if incoming.offset not in (0, kept):
            raise seam.WrongOffset(f"the upload goes on at {kept}, not at {incoming.offset}", kept)
        if incoming.offset == 0:
            part.unlink(missing_ok=True)
        await sanic_seam.send_continue(request)
        try:
            with part.open("ab") as file:
                await self._take(request, incoming, file)
        except BaseException:
            if not incoming.resumable:
                part.unlink()
            raise
        try:
            data = part.read_bytes()
        except FileNotFoundError:
            raise seam.NotThere("the upload was forgotten") from None
        if incoming.resumable and incoming.size_bytes is not None and len(data) < incoming.size_bytes:
            return Kept(len(data))
        try:
            self._check(incoming, data)
        except seam.CarrierError:
            part.unlink()
            raise
        return self._publish(incoming, part, data)

    async def _take(self, request: Request, incoming: Incoming, file: Any) -> None:
        stream: Any = request.stream
        stream.request_max_size = 10**12
        while (piece := await stream.read()) is not None:
            file.write(piece)
            file.flush()
            if incoming.size_bytes is not None and file.tell() > incoming.size_bytes:
                raise seam.WrongSize(f"more than {incoming.size_bytes} bytes came")

    def _check(self, incoming: Incoming, data: bytes) -> None:
        if (incoming.image.disk_format == "qcow2") != data.startswith(QCOW2):
            raise seam.WrongFormat(f"the data is not {incoming.image.disk_format}")
        if data.startswith(FULL):
            raise seam.StorageFull("no store has room")
        if incoming.size_bytes is not None and len(data) != incoming.size_bytes:
            raise seam.WrongSize(f"{len(data)} bytes came, {incoming.size_bytes} were announced")
        if incoming.md5 is not None and hashlib.md5(data).hexdigest() != incoming.md5:
            raise seam.WrongChecksum("the data has another md5 than was announced")

    def _publish(self, incoming: Incoming, part: Path, data: bytes) -> Received:
        place = self._directory / incoming.image.id
        part.rename(place)
        location = Location(store="fake", uri=f"file://{place}")
        md5, sha512 = hashlib.md5(data).hexdigest(), hashlib.sha512(data).hexdigest()
        return Received(location, len(data), md5, "sha512", sha512, len(data))

    async def send(
        self, request: Request, location: Location, size_bytes: int, span: Span, status: int, headers: Headers
    ) -> Sent:
        """As Carrier says."""
        try:
            data = Path(location.uri.removeprefix("file://")).read_bytes()
        except FileNotFoundError:
            raise seam.NotThere("the data is gone") from None
        return await sanic_seam.reply(request, status, headers, data[span.offset : span.offset + span.length])

    async def registered(self, image_id: str, location: Location) -> None:
        """As Carrier says."""

    async def volumes(self) -> frozenset[str]:
        """As Carrier says; a fake's directory bears no name."""
        return frozenset()

    async def sweep(self, wanted: Wanted, shared: bool = True) -> int:
        """As Carrier says; a fake does not crash."""
        return 0

    async def remove(self, location: Location) -> None:
        """As Carrier says."""
        Path(location.uri.removeprefix("file://")).unlink(missing_ok=True)

    async def kept(self, image_id: str) -> int | None:
        """As Carrier says."""
        part = self._part(image_id)
        return part.stat().st_size if part.exists() else None

    async def forget(self, image_id: str) -> None:
        """As Carrier says."""
        self._part(image_id).unlink(missing_ok=True)

    async def stores(self) -> Sequence[Store]:
        """As Carrier says."""
        return [Store("fake", "for tests", default=True)]

    def _part(self, image_id: str) -> Path:
        return self._directory / f"{image_id}.part"
