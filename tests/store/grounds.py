"""Every kind of store with something to keep it in, for tests that ask the same of each.

file      a directory
s3        OpenStack Swift's S3 API, a real server
swift     the same Swift in its own API
webhdfs   the double of tests/store/webhdfs_server.py
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from config import volumes
from tests.harness.mover import Value
from tests.store.s3_servers import BUCKET, SECRET, S3Server
from tests.store.swift import KEY, swift
from tests.store.webhdfs_server import Hdfs, webhdfs
from workers.store.objects.asking import Request, ask

MIB = 1024 * 1024
KINDS = ("file", "s3", "swift", "webhdfs")
CONTAINER = "disks"
# The least that each takes, so that small images have several.
PART_BYTES = {"file": 5 * MIB, "s3": 5 * MIB, "swift": MIB, "webhdfs": MIB}


@dataclass
class Ground:
    """Where a store's images are: its table of the settings, and `left`, the names of all that is there."""

    kind: str
    table: dict[str, Value]
    left: Callable[[], list[str]]

    @property
    def part_bytes(self) -> int:
        """Where borders are in what the store keeps."""
        return PART_BYTES[self.kind]


class Account:
    """A container of Swift's, without Mover."""

    def __init__(self, server: S3Server) -> None:
        self.auth_url = f"{server.endpoint}/auth/v1.0"
        self.renew()
        self.ask("PUT")

    def renew(self) -> None:
        """Another token."""
        answer = ask(Request("GET", self.auth_url, {"X-Auth-User": KEY, "X-Auth-Key": SECRET}))
        self.url, self.token = answer.headers["x-storage-url"], answer.headers["x-auth-token"]

    def ask(self, method: str, name: str = "", **headers: str) -> list[str]:
        """The lines of an answer."""
        sent = {"X-Auth-Token": self.token} | {name.replace("_", "-"): value for name, value in headers.items()}
        answer = ask(Request(method, f"{self.url}/{CONTAINER}{name}", sent))
        assert answer.status < 300, answer
        return answer.body.decode().split()

    def names(self) -> list[str]:
        """Everything in it."""
        return self.ask("GET")


@dataclass
class Grounds:
    """All of them; `swift_server` and `account` are the same server, twice."""

    by_kind: dict[str, Ground]
    swift_server: S3Server
    account: Account
    hdfs: Hdfs

    def forget_tokens(self) -> None:
        """Every token that Swift has given is unknown from now on: they are kept in memcached, and nowhere else."""
        with socket.create_connection(("127.0.0.1", self.swift_server.memcached)) as memcached:
            memcached.sendall(b"flush_all\r\n")
            assert memcached.recv(100) == b"OK\r\n"
        self.account.renew()

    def left(self) -> dict[str, list[str]]:
        """What is in each store."""
        return {kind: ground.left() for kind, ground in self.by_kind.items()}


@contextmanager
def grounds(room: Path, disk: Path) -> Iterator[Grounds]:
    """Everything runs. `disk` is a directory with extended attributes, which Swift wants."""
    with ExitStack() as stack:
        server = stack.enter_context(swift(disk))
        hdfs = stack.enter_context(webhdfs())
        account, directory = Account(server), room / "images"
        directory.mkdir()
        tables: dict[str, dict[str, Value]] = {
            "file": {"directories": [str(directory)]},
            "s3": {"endpoint": server.endpoint, "bucket": BUCKET, "credentials_file": str(server.credentials())},
            "swift": {"auth_url": account.auth_url, "auth": "v1", "container": CONTAINER, "prefix": "mover/"},
            "webhdfs": {"endpoint": hdfs.endpoint, "directory": "/mover/images"},
        }
        left: dict[str, Callable[[], list[str]]] = {
            "file": lambda: sorted(path.name for path in directory.iterdir() if path.name != volumes.FILE),
            "s3": lambda: server.names() + ["an upload"] * server.unfinished(),
            "swift": account.names,
            "webhdfs": lambda: hdfs.names("/mover/images"),
        }
        for kind in KINDS:
            tables[kind] |= {"type": kind, "id": f"a-{kind}"} | (
                {} if kind == "file" else {"part_bytes": PART_BYTES[kind]}
            )
        yield Grounds({kind: Ground(kind, tables[kind], left[kind]) for kind in KINDS}, server, account, hdfs)
