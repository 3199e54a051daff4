"""Two hosts, each with a network and a disk of its own, that share a PostgreSQL and a bucket; one set for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from config import volumes
from mover.library.registry import migrate
from mover.library.registry.registry import Registry
from tests.harness.fixtures import memory_room
from tests.harness.mover import Tables
from tests.harness.postgres import Postgres, running
from tests.harness.sources import Sources, sources
from tests.scale.hosts import Host, HostMover
from tests.scale.network import network
from tests.store.s3_servers import BUCKET, S3Server, moto

# A host that is not seen for so long is dead.
DEAD_S = 3.0
PART_BYTES = 5 * 1024 * 1024


@dataclass
class Site:
    """The hosts, and what they share."""

    first: Host
    second: Host
    postgres: Postgres
    s3: S3Server
    sources: Sources
    room: Path

    @property
    def nfs(self) -> Path:
        return self.room / "nfs"

    def left(self) -> list[str]:
        """All that lies in what they share, of which nobody ever made an image that is there."""
        return [*self.s3.names(), *(path.name for path in self.nfs.iterdir() if path.name != volumes.FILE)]


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """Two hosts that run."""
    if os.geteuid() != 0:
        pytest.skip("hosts with networks of their own take root")
    with ExitStack() as stack:
        room = stack.enter_context(memory_room())
        disk = room / "disk"
        disk.mkdir()
        net = stack.enter_context(network(disk))
        postgres = stack.enter_context(running(net.address))
        s3 = stack.enter_context(moto(room, net.address))
        urls = stack.enter_context(sources(host=net.address))
        tables = settings(postgres.database(), s3, urls, disk)

        def host(name: str) -> Host:
            own = room / name
            own.mkdir()
            mover = HostMover(own, net.host(name), tables)
            stack.callback(mover.close)
            mover.start()
            return Host(mover)

        yield Site(host("kvm1"), host("kvm2"), postgres, s3, urls, room)


def settings(database: str, s3: S3Server, urls: Sources, disk: Path) -> Tables:
    """Every host's configuration: a bucket and a directory that all share, and one of which each has its own."""
    return {
        "library": {
            "database": database, "host_dead_s": DEAD_S, "database_timeout_s": 5.0,
            "url_ports": [urls.port], "url_allow": [urls.host],
        },
        "allow": {"nbd_sockets": [str(disk.parent)]},
        "worker": {"idle_s": 1.0},
        "store": [
            {
                "type": "s3", "id": "cellar", "endpoint": s3.endpoint, "bucket": BUCKET,
                "credentials_file": str(s3.credentials()), "part_bytes": PART_BYTES,
            },
            {"type": "file", "id": "disk", "directories": [str(disk / "images")]},
            {"type": "file", "id": "nfs", "directories": [str(disk.parent / "nfs")]},
        ],
    }  # fmt: skip


@pytest.fixture(params=["sqlite", "postgresql"])
def registry_of_hosts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    """A registry without images, on both databases."""
    if request.param == "sqlite":
        database = f"sqlite:///{tmp_path}/library.sqlite"
    else:
        server: Postgres = request.getfixturevalue("postgres")
        database = server.database()
    migrate.upgrade(database)
    registry = Registry(database)
    yield registry
    registry.close()
