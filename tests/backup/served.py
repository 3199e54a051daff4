"""A changing disk behind qemu-nbd and `mover serve`, backed up by the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mover.cli.main import main
from tests.harness.mover import Mover
from tests.harness.servers import NbdServer, qemu_nbd


def backup(*arguments: object) -> int:
    """`mover backup ARGUMENTS` in this process; its exit status."""
    return main(["backup", *(str(each) for each in arguments)])


def said(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The objects that a command has printed with --json."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


class Served:
    """`mover serve` of the qcow2 file `disk`, once for each of its bitmaps: as image `b0` with the bitmap b0, …

    One qemu-nbd at a time opens the file, for as long as `serving` lasts; between these it may be changed.
    """

    def __init__(self, room: Path, bitmaps: Sequence[str | None]) -> None:
        self.room = room
        self.disk = room / "disk.qcow2"
        own = room / "mover"
        own.mkdir()
        self.servers: dict[str, NbdServer] = {}
        images: dict[str, str] = {}
        for bitmap in bitmaps:
            name = bitmap or "whole"
            server = qemu_nbd(room, name, self.disk, image_format="qcow2", read_only=True, bitmap=bitmap)
            self.servers[name] = server
            images[name] = server.uri() + (f"&bitmap={bitmap}" if bitmap else "")
        self.mover = Mover(own, images)

    @contextmanager
    def serving(self, bitmap: str | None = None) -> Iterator[str]:
        """The URL of the image with this bitmap, while it is served."""
        server = self.servers[bitmap or "whole"]
        server.start()
        try:
            yield self.url(bitmap)
        finally:
            server.stop()

    def url(self, bitmap: str | None = None) -> str:
        """The URL of the image with this bitmap."""
        return f"http://127.0.0.1:{self.mover.tcp[1]}/images/{bitmap or 'whole'}"

    def close(self) -> None:
        """End all servers."""
        self.mover.close()
        for server in self.servers.values():
            server.close()
