"""imageio's sequence and CloudStack's at the same time on one server: tickets, transfers, progress, and their ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.conftest import DISK_BYTES, make_disk, run
from tests.clients.test_imageio import IMAGEIO, imageio
from tests.control.agent import Agent, ok
from tests.harness.http import ask
from tests.harness.mover import Mover
from tests.harness.servers import NbdServer, qemu_nbd
from tests.harness.transfers import Doing
from tests.tickets.vdsm import Vdsm, nbd_url

pytestmark = [
    pytest.mark.nbd,
    pytest.mark.slow,
    pytest.mark.skipif(IMAGEIO is None, reason="ovirt-imageio is missing: `.ci/setup imageio` installs it"),
]


@dataclass(frozen=True)
class Host:
    """A Mover with both control sockets, both agents, and a disk as a file."""

    mover: Mover
    vdsm: Vdsm
    agent: Agent
    room: Path

    def url(self, image: str, *, unix: bool) -> str:
        """Where an image is: imageio's client takes the Unix socket of OPTIONS where the name is this host's own."""
        return f"http://{'localhost' if unix else '127.0.0.1'}:{self.mover.tcp[1]}/images/{image}"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One for all transfers."""
    room = tmp_path_factory.mktemp("host")
    make_disk(room / "disk.raw")
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", room / "disk.raw", room / "disk.qcow2")
    vdsm, agent = Vdsm(room / "tickets.sock"), Agent(room / "control.sock")
    serve = {"ticket_socket": str(vdsm.path), "control_socket": str(agent.path)}
    mover = Mover(room, {}, {"serve": serve}, 2)
    with ExitStack() as stack:
        stack.callback(mover.close)
        yield Host(mover.start(), vdsm, agent, room)


def empty(host: Host, stack: ExitStack, name: str, image_format: str) -> NbdServer:
    """A server of an empty disk."""
    path = host.room / f"{name}.{image_format}"
    run("qemu-img", "create", "-q", "-f", image_format, path, str(DISK_BYTES))
    server = qemu_nbd(host.room, f"{name}-{image_format}", path, image_format=image_format)
    stack.callback(server.close)
    return server.start()


def by_imageio(host: Host, server: NbdServer, image_format: str, workers: int, *, unix: bool) -> None:
    """What vdsm and a backup program do: up, compared, down, compared."""
    source, copy = host.room / f"disk.{image_format}", host.room / f"copy-{workers}.{image_format}"
    up = host.vdsm.install(nbd_url(server), DISK_BYTES, "write", sparse=True)
    imageio("upload", source, host.url(up, unix=unix), workers)
    assert host.vdsm.look(up)["transferred"] == DISK_BYTES
    checksum = ask(host.mover.tcp, "GET", f"/images/{up}/checksum").json()
    assert checksum == json.loads(imageio("checksum", source))
    host.vdsm.remove(up)
    down = host.vdsm.install(nbd_url(server), DISK_BYTES, "read")
    zero = json.loads(imageio("extents", host.url(down, unix=unix), "zero"))
    data = sum(one["length"] for one in zero if not one["zero"])
    imageio("download", host.url(down, unix=unix), copy, image_format, workers)
    state = host.vdsm.look(down)
    assert data <= state["transferred"] <= DISK_BYTES
    host.vdsm.remove(down)
    assert host.vdsm.ask("GET", down).status == 404
    run("qemu-img", "compare", "-f", "raw", "-F", image_format, host.room / "disk.raw", copy)


def by_cloudstack(host: Host, server: NbdServer, name: str) -> None:
    """What CloudStack's agent and its clients do: register, PUT, flush, GET, unregister."""
    content = (host.room / "disk.raw").read_bytes()
    assert host.agent.register(name, server)["status"] == "ok"
    answer = ask(host.mover.tcp, "PUT", f"/images/{name}", content)
    assert answer.json() == {"ok": True, "bytes_written": DISK_BYTES, "flushed": False}
    assert ask(host.mover.tcp, "POST", f"/images/{name}/flush").status == 200
    assert ask(host.mover.tcp, "GET", f"/images/{name}").body == content
    assert host.agent.unregister(name)["status"] == "ok"
    assert ask(host.mover.tcp, "GET", f"/images/{name}").status == 404


@pytest.mark.parametrize("workers", [1, 4, 8])
@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_both_agents_have_their_transfers_at_once(host: Host, workers: int, unix: bool) -> None:
    """A raw and a qcow2 disk by imageio's tickets, and two by CloudStack's transfers, all at the same time."""
    name = f"disk{workers}{unix}"
    with ExitStack() as stack:
        servers = [empty(host, stack, f"{name}-{number}", "qcow2" if number == 1 else "raw") for number in range(4)]
        doing = [
            Doing(lambda: by_imageio(host, servers[0], "raw", workers, unix=unix)),
            Doing(lambda: by_imageio(host, servers[1], "qcow2", workers, unix=unix)),
            Doing(lambda: by_cloudstack(host, servers[2], f"{name}-a")),
            Doing(lambda: by_cloudstack(host, servers[3], f"{name}-b")),
        ]
        for one in doing:
            one.result(120)
    assert host.agent.ask("status") == ok(0)
    assert host.vdsm.ask("GET").json() == []


def test_imageio_s_client_is_told_of_the_unix_socket(host: Host) -> None:
    """OPTIONS names it."""
    with ExitStack() as stack:
        ticket = host.vdsm.install(nbd_url(empty(host, stack, "asked", "raw")), DISK_BYTES, "read")
        assert ask(host.mover.tcp, "OPTIONS", f"/images/{ticket}").json()["unix_socket"] == str(host.mover.unix)
        host.vdsm.remove(ticket)
