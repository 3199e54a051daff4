"""`python -m tests.haul.front_end --control-fd N`: a front end whose carrier is asked for hauls, by `/haul`.

POST begins one and answers with its number, GET tells how far it is and what became of it, DELETE cancels it.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import Any

import msgspec
from sanic import Request

from config.export import Export
from config.export_url import parse_export
from mover.front import __main__ as front_end
from mover.front import sanic_bodies
from mover.front.answers import send_json
from mover.front.app import create_app
from mover.front.sanic_seam import Sent
from mover.library.library import Library
from mover.library.records import ImageRecord, Location, Visibility
from mover.library.seam import Carrier, CarrierError, Disk, Incoming, Ticketed
from mover.library.states import State

BODY_MOST = 65536
_NOWHERE = Export("file")


class Asked(msgspec.Struct, omit_defaults=True):
    """A haul: `disk` (a URL, or ticket:ID), or what is at `copy_of`, becomes the image; or the image at `location` goes
    onto the disk.
    """

    disk: str = ""
    copy_of: Location | None = None
    image: str = ""
    location: Location | None = None
    size_bytes: int | None = None
    offset: int = 0
    resumable: bool = False
    digests: bool = True
    md5: str | None = None
    store: str | None = None
    disk_format: str | None = None


class Haul:
    """One of them, and how far it is."""

    def __init__(self, carrier: Carrier, asked: Asked) -> None:
        self._carrier = carrier
        self.moved = 0
        self.task = asyncio.get_running_loop().create_task(self._run(asked))

    async def _run(self, asked: Asked) -> dict[str, Any]:
        scheme, _, ticket = asked.disk.partition(":")
        disk: Disk = _NOWHERE if asked.copy_of else Ticketed(ticket) if scheme == "ticket" else parse_export(asked.disk)
        if asked.location is not None:
            assert asked.size_bytes is not None
            await self._carrier.deliver(asked.location, asked.size_bytes, disk, self._progress, asked.disk_format)
            return {}
        image = ImageRecord(
            asked.image, State.SAVING, Visibility.PRIVATE, 0, 0, 0, disk_format="raw", container_format="bare"
        )
        incoming = Incoming(image, asked.offset, None, asked.size_bytes, asked.md5, asked.store, asked.resumable)
        if asked.copy_of is not None:
            received = await self._carrier.copy(asked.copy_of, incoming, self._progress)
            return {"received": msgspec.to_builtins(received)}
        received = await self._carrier.bring(disk, incoming, self._progress, asked.digests)
        await self._carrier.registered(asked.image, received.location)
        return {"received": msgspec.to_builtins(received)}

    def _progress(self, done: int, size: int | None) -> None:
        assert size is None or done <= size
        self.moved = done

    def told(self) -> dict[str, Any]:
        """What became of it."""
        told: dict[str, Any] = {"moved": self.moved, "state": "moving"}
        if self.task.done():
            told["state"] = "cancelled" if self.task.cancelled() else "failed" if self.task.exception() else "done"
            if told["state"] == "failed":
                error = self.task.exception()
                told |= {"error": type(error).__name__, "message": str(error)}
                if not isinstance(error, CarrierError):
                    told["state"] = "broken"
            elif told["state"] == "done":
                told |= self.task.result()
        return told


class Hauls:
    """All hauls of one front end."""

    def __init__(self, library: Library) -> None:
        self._carrier = library.carrier
        self._hauls: list[Haul] = []

    async def answer(self, request: Request) -> Sent:
        """POST, GET or DELETE."""
        if request.method == "POST":
            body = await sanic_bodies.read_body(request, BODY_MOST)
            assert body is not None
            self._hauls.append(Haul(self._carrier, msgspec.json.decode(body, type=Asked)))
            return await send_json(request, 200, {"number": len(self._hauls) - 1}, [])
        if "kept" in request.args:
            return await send_json(request, 200, await self._carrier.kept(request.args.get("kept")), [])
        haul = self._hauls[int(request.args.get("number"))]
        if request.method == "DELETE":
            haul.task.cancel()
            await asyncio.wait({haul.task})
        return await send_json(request, 200, haul.told(), [])


def _with_hauls(door: Any, metrics_on_tcp: bool, library: Library) -> Any:
    app = create_app(door, metrics_on_tcp, library)
    app.add_route(partial(Hauls(library).answer), "/haul", methods=["POST", "GET", "DELETE"], stream=True, name="haul")
    return app


if __name__ == "__main__":
    setattr(front_end, "create_app", _with_hauls)  # noqa: B010 - mypy knows that it is another module's name
    sys.exit(front_end.main())
