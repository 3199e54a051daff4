"""A Carrier for tests of the views: files in a directory, hashed in the loop, and no more than the seam asks for."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from sanic import Request

from config.export import Export
from mover.front import sanic_bodies, sanic_seam
from mover.front.sanic_seam import Headers, Sent
from mover.library import seam
from mover.library.records import ImageRecord, Location
from mover.library.seam import Disk, Incoming, Kept, Progress, Received, Referred, Span, Store, Wanted

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
        await sanic_bodies.send_continue(request)
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

    async def bring(self, source: Disk, incoming: Incoming, progress: Progress, digests: bool = True) -> Received:
        """As Carrier says, of a raw file; what has come when it is cancelled is kept."""
        assert isinstance(source, Export)
        data = Path(source.path).read_bytes()
        part = self._part(incoming.image.id)
        step = max(1, len(data) // 4)
        try:
            with part.open("ab" if incoming.offset else "wb") as file:
                for at in range(incoming.offset, len(data), step):
                    progress(at, len(data))
                    file.write(data[at : at + step])
                    file.flush()
                    await asyncio.sleep(0)
            self._check(incoming, data)
        except BaseException:
            if not incoming.resumable:
                part.unlink()
            raise
        progress(len(data), len(data))
        received = self._publish(incoming, part, data)
        return received if digests else msgspec.structs.replace(received, md5=None, hash_value=None)

    async def stage(self, request: Request, incoming: Incoming) -> int:
        """As Carrier says."""
        with self._part(incoming.image.id).open("wb") as file:
            await self._take(request, incoming, file)
            return file.tell()

    async def publish_staged(self, incoming: Incoming) -> Received:
        """As Carrier says."""
        part = self._part(incoming.image.id)
        try:
            data = part.read_bytes()
        except FileNotFoundError:
            raise seam.NotThere("nothing is staged") from None
        return self._publish(incoming, part, data)

    def source(self, location: Location) -> Export:
        """As Carrier says."""
        return Export("file", path=location.uri.removeprefix("file://"))

    async def copy(self, location: Location, incoming: Incoming, progress: Progress) -> Received:
        """As Carrier says."""
        source = Export("file", path=location.uri.removeprefix("file://"))
        return await self.bring(source, incoming, progress, incoming.md5 is not None)

    async def deliver(
        self,
        location: Location,
        size_bytes: int,
        target: Disk,
        progress: Progress,
        disk_format: str | None = None,
    ) -> None:
        """As Carrier says, onto a raw file."""
        assert isinstance(target, Export)
        data = Path(location.uri.removeprefix("file://")).read_bytes()
        disk = Path(target.path)
        if disk.stat().st_size < size_bytes:
            raise seam.DiskRefused(f"the target has {disk.stat().st_size} bytes, the image has {size_bytes}")
        with disk.open("r+b") as file:
            file.write(data)
        progress(len(data), len(data))

    async def send(
        self, request: Request, location: Location, size_bytes: int, span: Span, status: int, headers: Headers
    ) -> Sent:
        """As Carrier says."""
        try:
            data = Path(location.uri.removeprefix("file://")).read_bytes()
        except FileNotFoundError:
            raise seam.NotThere("the data is gone") from None
        return await sanic_seam.reply(request, status, headers, data[span.offset : span.offset + span.length])

    async def refer(self, url: str, store: str | None = None) -> Referred:
        """As Carrier says: what is at a URL is as long as the URL."""
        if store not in (None, "urls"):
            raise seam.UnknownStore(f"store {store!r} has no images that stay at a URL")
        if not url.startswith("http://"):
            raise seam.NotAllowed("only http is read")
        if "away" in url:
            raise seam.Unreachable("the server is away")
        if "missing" in url:
            raise seam.NotThere("there is nothing at the URL")
        return Referred(Location(store="urls", uri=url), len(url))

    async def registered(self, image_id: str, location: Location) -> None:
        """As Carrier says."""

    async def volumes(self) -> frozenset[str]:
        """As Carrier says; a fake's directory bears no name."""
        return frozenset()

    async def readable(self, location: Location, disk_format: str | None) -> Export:
        """Tickets are tried with the true one."""
        raise seam.NotPossible("the fake carrier has no tickets")

    async def prepare(self, image: ImageRecord, size_bytes: int, store: str | None) -> tuple[str, Export]:
        """The same."""
        raise seam.NotPossible("the fake carrier has no tickets")

    async def finish(self, image: ImageRecord, size_bytes: int, store: str) -> Received:
        """The same."""
        raise seam.NotPossible("the fake carrier has no tickets")

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
