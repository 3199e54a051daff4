"""CloudStack's agent and imageio's client at one server, at the same time: each finds all that it uses."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.clients.conftest import DISK_BYTES, make_disk, run, same
from tests.clients.imageio_client import IMAGEIO, imageio
from tests.control.agent import Agent, ok
from tests.control.start import start
from tests.harness.fixtures import Images
from tests.harness.http import ask
from tests.harness.patterns import MIB, assert_same_file, difference, pattern
from tests.harness.servers import NbdServer
from tests.harness.transfers import Doing, download
from tests.harness.waiting import PATIENCE_S

pytestmark = [
    pytest.mark.nbd,
    pytest.mark.skipif(IMAGEIO is None, reason="ovirt-imageio is missing: `.ci/setup imageio` installs it"),
]

TENANTS = 3
ROUNDS = 3
PIECE = 2 * MIB
SIZE = 4 * PIECE


def cloudstack(agent: Agent, address: tuple[str, int], name: str, disk: NbdServer) -> None:
    """What the agent and its clients do for one disk, again and again: every byte read back is what was written."""
    for stamp in range(ROUNDS):
        assert agent.ask("status")["status"] == "ok"
        assert agent.register(name, disk)["status"] == "ok"
        body = pattern(7, 0, SIZE, stamp)
        for at in range(0, SIZE, PIECE):
            span = f"bytes {at}-{at + PIECE - 1}/{SIZE}"
            answer = ask(address, "PUT", f"/images/{name}", body[at : at + PIECE], Content_Range=span)
            assert answer.json() == {"ok": True, "bytes_written": PIECE, "flushed": False}
        assert ask(address, "POST", f"/images/{name}/flush").json()["flushed"] is True
        download(address, f"/images/{name}", memoryview(body))
        assert agent.unregister(name)["status"] == "ok"
        assert ask(address, "GET", f"/images/{name}").status == 404


def imageio_with(room: Path, url: str, image_format: str, workers: int) -> None:
    """A backup program's day: upload, checksum, extents, download."""
    source, copy = room / f"source.{image_format}", room / f"copy-{image_format}"
    imageio("upload", source, f"{url}/empty-{image_format}", workers)
    theirs = json.loads(imageio("checksum", source))
    port = int(url.rpartition(":")[2].partition("/")[0])
    answer = ask(("127.0.0.1", port), "GET", f"/images/empty-{image_format}/checksum")
    assert answer.json() == theirs
    found = json.loads(imageio("extents", f"{url}/empty-{image_format}", "zero"))
    assert sum(extent["length"] for extent in found) == DISK_BYTES
    imageio("download", f"{url}/empty-{image_format}", copy, image_format, workers)
    same(room, "source.raw", "raw", copy, image_format)


def test_both_at_one_server(room: Path, images: Images, endings: ExitStack) -> None:
    """Started by CloudStack's command line, with exports of the operator's for imageio; all bytes are compared."""
    make_disk(room / "source.raw")
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", room / "source.raw", room / "source.qcow2")
    config = "[serve]\nfront_ends = 2\n"
    for image_format in ("raw", "qcow2"):
        empty = room / f"empty.{image_format}"
        run("qemu-img", "create", "-q", "-f", image_format, empty, str(DISK_BYTES))
        server = images.qemu_nbd(empty, image_format=image_format)
        config += f'[[image]]\nid = "empty-{image_format}"\nurl = "{server.uri()}"\n'
    (room / "mover.toml").write_text(config)
    agent = Agent(room / "control")
    process, address = start(room, agent, endings, [f"--config={room}/mover.toml"])
    url = f"http://127.0.0.1:{address[1]}/images"
    disks = [images.qemu_nbd(images.hole(f"disk-{number}", SIZE)) for number in range(TENANTS)]
    tenants = [
        Doing(partial(cloudstack, agent, address, f"transfer-{number}", disk)) for number, disk in enumerate(disks)
    ]
    programs = [Doing(partial(imageio_with, room, url, image_format, 4)) for image_format in ("raw", "qcow2")]
    for one in (*tenants, *programs):
        one.result(120)
    assert agent.ask("status") == ok(0)
    for number in range(TENANTS):
        assert difference((room / f"disk-{number}").read_bytes(), pattern(7, 0, SIZE, ROUNDS - 1)) is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 0
    assert_same_file(room / "empty.raw", room / "source.raw")
