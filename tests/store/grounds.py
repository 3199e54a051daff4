"""Every kind of store with something to keep it in, for tests that ask the same of each.

file      a directory
s3        OpenStack Swift's S3 API, a real server
swift     the same Swift in its own API
webhdfs   the double of tests/store/webhdfs_server.py
http      a server of sources, which is only read
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TypeVar

from config import volumes
from tests.harness.mover import Value
from tests.harness.sources import Source, Sources, sources
from tests.store.library import Library
from tests.store.s3_servers import BUCKET, SECRET, S3Server
from tests.store.swift import KEY, swift
from tests.store.webhdfs_server import Hdfs, webhdfs
from workers.store.objects.asking import Request, ask

T = TypeVar("T")

MIB = 1024 * 1024
# Those that are written, and all that are read.
KINDS = ("file", "s3", "swift", "webhdfs")
READ_KINDS = (*KINDS, "http")
CONTAINER = "disks"
# The least that each takes, so that small images have several; of a URL the most that is asked for at once.
PART_BYTES = {"file": 5 * MIB, "s3": 5 * MIB, "swift": MIB, "webhdfs": MIB, "http": 4 * MIB}


@dataclass
class Ground:
    """Where a store's images are: its table of the settings, and `left`, the names of all that is there. What a URL
    names is never ours: there `left` has requests for anything else than to read it.

    `spoil` has the only thing that is there replaced, behind Mover's back; None takes it away.
    """

    kind: str
    table: dict[str, Value]
    left: Callable[[], list[str]]
    spoil: Callable[[bytes | None], None]
    serve: Callable[[bytes], str] | None = None

    @property
    def part_bytes(self) -> int:
        """Where borders are in what the store keeps."""
        return PART_BYTES[self.kind]

    @property
    def writes(self) -> bool:
        """Whether images are brought to it; else they are where `serve` has them."""
        return self.serve is None

    def have(self, library: Library, data: bytes) -> str:
        """An active image of these bytes in this store."""
        if self.serve is not None:
            return library.refer(self.serve(data))
        image = library.create()
        answer = library.put(image, data, X_Image_Meta_Store=str(self.table["id"]))
        assert answer.status == 204, answer
        return image


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

    def ask(
        self, method: str, name: str = "", body: bytes = b"", container: str = CONTAINER, **headers: str
    ) -> list[str]:
        """The lines of an answer."""
        sent = {"X-Auth-Token": self.token} | {name.replace("_", "-"): value for name, value in headers.items()}
        answer = ask(Request(method, f"{self.url}/{container}{name}", sent, body))
        assert answer.status < 300, answer
        return answer.body.decode().split()

    def spoil(self, container: str, names: list[str], data: bytes | None) -> None:
        """Replace the only object that is no segment, or take it away, whatever made it."""
        [name] = [name for name in names if ".segments/" not in name]
        if data is None:
            self.ask("DELETE", f"/{name}", container=container)
        else:
            self.ask("PUT", f"/{name}", data, container)

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
    web: Sources

    @property
    def written(self) -> list[Ground]:
        """Those that images are brought to."""
        return [ground for ground in self.by_kind.values() if ground.writes]

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
        web = stack.enter_context(sources(keep_alive=False))
        account, directory = Account(server), room / "images"
        directory.mkdir()
        tables: dict[str, dict[str, Value]] = {
            "file": {"directories": [str(directory)]},
            "s3": {"endpoint": server.endpoint, "bucket": BUCKET, "credentials_file": str(server.credentials())},
            "swift": {"auth_url": account.auth_url, "auth": "v1", "container": CONTAINER, "prefix": "mover/"},
            "webhdfs": {"endpoint": hdfs.endpoint, "directory": "/mover/images"},
            "http": {},
        }
        left: dict[str, Callable[[], list[str]]] = {
            "file": lambda: sorted(path.name for path in directory.iterdir() if path.name != volumes.FILE),
            "s3": lambda: server.names() + ["an upload"] * server.unfinished(),
            "swift": account.names,
            "webhdfs": lambda: hdfs.names("/mover/images"),
            "http": lambda: [line for line in web.seen if not line.startswith("GET ")],
        }
        spoil: dict[str, Callable[[bytes | None], None]] = {
            "file": lambda data: _spoil_file(directory / left["file"]()[0], data),
            "s3": lambda data: account.spoil(BUCKET, server.names(), data),
            "swift": lambda data: account.spoil(CONTAINER, account.names(), data),
            "webhdfs": lambda data: _spoil_entry(hdfs.files, None if data is None else bytearray(data)),
            "http": lambda data: _spoil_entry(web.sources, None if data is None else Source(data)),
        }
        numbers = count()
        for kind in READ_KINDS:
            tables[kind] |= {"type": kind, "id": f"a-{kind}"}
        for kind in ("s3", "swift", "webhdfs"):
            tables[kind]["part_bytes"] = PART_BYTES[kind]
        made = {kind: Ground(kind, tables[kind], left[kind], spoil[kind]) for kind in READ_KINDS}
        made["http"].serve = lambda data: web.put(f"/image-{next(numbers)}?signature=secret", data)
        yield Grounds(made, server, account, hdfs, web)


def _spoil_file(path: Path, data: bytes | None) -> None:
    path.unlink()
    if data is not None:
        path.write_bytes(data)


def _spoil_entry(entries: dict[str, T], entry: T | None) -> None:
    """Of a server's files, which are kept by their paths, the one that came last."""
    path = list(entries)[-1]
    if entry is None:
        del entries[path]
    else:
        entries[path] = entry
