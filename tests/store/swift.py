"""OpenStack Swift for tests, as a server of S3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mover.bench import swift as servers
from tests.store.s3_servers import BUCKET, S3Server

KEY = servers.USER


@contextmanager
def swift(room: Path) -> Iterator[S3Server]:
    """Swift with an empty bucket. `room` must be on a file system with extended attributes."""
    with servers.swift(room, BUCKET) as server:
        yield S3Server(server.endpoint, room, KEY, servers.SECRET, memcached=server.memcached)
