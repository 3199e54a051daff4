"""imageio's sequence and CloudStack's at the same time on one server: tickets, transfers, progress, and their ends.

In the clear and over TLS; what the metrics count is what the clients moved.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.conftest import DISK_BYTES, make_disk, run
from tests.clients.imageio_client import IMAGEIO, imageio
from tests.control.agent import Agent, ok
from tests.harness.certificates import Authority, tables
from tests.harness.http import Address, Answer, ask
from tests.harness.mover import Mover
from tests.harness.servers import NbdServer, qemu_nbd
from tests.harness.transfers import Doing
from tests.harness.waiting import wait_until
from tests.operation.metrics import metrics
from tests.tickets.vdsm import Vdsm, nbd_url

pytestmark = [
    pytest.mark.nbd,
    pytest.mark.slow,
    pytest.mark.skipif(IMAGEIO is None, reason="ovirt-imageio is missing: `.ci/setup imageio` installs it"),
]


@dataclass(frozen=True)
class Host:
    """A Mover with both control sockets, both agents, and a disk as a file; `moved` are the bytes of its clients."""

    mover: Mover
    vdsm: Vdsm
    agent: Agent
    room: Path
    authority: Authority | None
    moved: Counter[str]

    def url(self, image: str, *, unix: bool) -> str:
        """Where an image is: imageio's client takes the Unix socket of OPTIONS where the name is this host's own."""
        scheme = "https" if self.authority else "http"
        return f"{scheme}://{'localhost' if unix else '127.0.0.1'}:{self.mover.tcp[1]}/images/{image}"

    def imageio(self, *arguments: str | Path | int) -> str:
        """Run imageio's client, which trusts the server."""
        return imageio(*([f"--cafile={self.authority.certificate}"] if self.authority else []), *arguments)

    def ask(self, method: str, target: str, body: bytes | None = None) -> Answer:
        """One request over TCP, over TLS if the server speaks it."""
        address: Address = self.mover.tcp
        if self.authority:
            address = self.mover.secure(self.authority.client_context())
        return ask(address, method, target, body)


@pytest.fixture(scope="module", params=["clear", "tls"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One for all transfers."""
    room = tmp_path_factory.mktemp("host")
    make_disk(room / "disk.raw")
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", room / "disk.raw", room / "disk.qcow2")
    vdsm, agent = Vdsm(room / "tickets.sock"), Agent(room / "control.sock")
    serve = {"ticket_socket": str(vdsm.path), "control_socket": str(agent.path)}
    authority = Authority(room) if request.param == "tls" else None
    secure = {"tls": tables(authority.issue("server"))} if authority else {}
    mover = Mover(room, {}, {"serve": serve, **secure}, 2)
    with ExitStack() as stack:
        stack.callback(mover.close)
        yield Host(mover.start(), vdsm, agent, room, authority, Counter())


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
    host.imageio("upload", source, host.url(up, unix=unix), workers)
    mapped = json.loads(run("qemu-img", "map", "--output=json", "-f", image_format, source))
    host.moved["in"] += sum(one["length"] for one in mapped if not one["zero"])
    assert host.vdsm.look(up)["transferred"] == DISK_BYTES
    checksum = host.ask("GET", f"/images/{up}/checksum").json()
    assert checksum == json.loads(imageio("checksum", source))
    host.vdsm.remove(up)
    down = host.vdsm.install(nbd_url(server), DISK_BYTES, "read")
    zero = json.loads(host.imageio("extents", host.url(down, unix=unix), "zero"))
    data = sum(one["length"] for one in zero if not one["zero"])
    host.imageio("download", host.url(down, unix=unix), copy, image_format, workers)
    host.moved["out"] += data
    state = host.vdsm.look(down)
    assert data <= state["transferred"] <= DISK_BYTES
    host.vdsm.remove(down)
    assert host.vdsm.ask("GET", down).status == 404
    run("qemu-img", "compare", "-f", "raw", "-F", image_format, host.room / "disk.raw", copy)


def by_cloudstack(host: Host, server: NbdServer, name: str) -> None:
    """What CloudStack's agent and its clients do: register, PUT, flush, GET, unregister."""
    content = (host.room / "disk.raw").read_bytes()
    assert host.agent.register(name, server)["status"] == "ok"
    answer = host.ask("PUT", f"/images/{name}", content)
    assert answer.json() == {"ok": True, "bytes_written": DISK_BYTES, "flushed": False}
    assert host.ask("POST", f"/images/{name}/flush").status == 200
    assert host.ask("GET", f"/images/{name}").body == content
    host.moved.update({"in": DISK_BYTES, "out": DISK_BYTES})
    assert host.agent.unregister(name)["status"] == "ok"
    assert host.ask("GET", f"/images/{name}").status == 404


def counted(host: Host) -> dict[str, float]:
    """The bytes of images, by direction, as the metrics have them."""
    page = metrics(host.mover)
    return {way: page.value("mover_client_bytes_total", direction=way) for way in ("in", "out")}


# Every pair of the three is there; all combinations of the three would be twice as many.
CELLS = [
    ("clear", False, 1), ("clear", True, 4), ("clear", False, 8),
    ("tls", True, 1), ("tls", False, 4), ("tls", True, 8),
]  # fmt: skip


@pytest.mark.parametrize(("host", "unix", "workers"), CELLS, indirect=["host"])
def test_both_agents_have_their_transfers_at_once(host: Host, unix: bool, workers: int) -> None:
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
    wait_until(f"the metrics have {host.moved}", lambda: counted(host) == host.moved)


def test_imageio_s_client_is_told_of_the_unix_socket(host: Host) -> None:
    """OPTIONS names it."""
    with ExitStack() as stack:
        ticket = host.vdsm.install(nbd_url(empty(host, stack, "asked", "raw")), DISK_BYTES, "read")
        assert host.ask("OPTIONS", f"/images/{ticket}").json()["unix_socket"] == str(host.mover.unix)
        host.vdsm.remove(ticket)
