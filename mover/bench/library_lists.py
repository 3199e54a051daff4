"""The row `library`, its lists: pages of 25 out of 100,000 images in SQLite, through HTTP."""

from __future__ import annotations

import http.client
import random
import statistics
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mover.bench.contest import Contender, Contest
from mover.bench.errors import ClientError
from mover.bench.row import Bench
from mover.bench.servers import HttpServer

IMAGES = 100_000
PAGE = 25
REQUESTS = 50
ROWS_AT_ONCE = 5000

# Two filters and a sort each: common values, an index's own order, a property of few, and a page from the middle.
QUERIES = {
    "two formats, by name": "disk_format=qcow2&container_format=bare&sort=name:asc",
    "status and visibility, newest": "status=active&visibility=public&sort=created_at:desc",
    "a property and a format, by size": "os_type=plan9&disk_format=qcow2&sort=size:desc",
    "size and status, by name, deep": "size_min=1000000&status=active&sort=name:asc&marker={middle}",
}


def lists(bench: Bench) -> list[Contest]:
    """The median of GET /v2/images for each of the queries."""
    [mover, *_] = bench.http_servers([])
    with closing(_connection(mover)) as connection:
        _ask(connection, "/v2/images")  # makes the database
    assert mover.unix_socket is not None
    middle = _fill(mover.unix_socket.parent / "state" / "library.sqlite")

    def contender(query: str) -> Contender:
        target = f"/v2/images?limit={PAGE}&{query.format(middle=middle)}"
        return Contender("mover", f"GET {target}", lambda: 1000 * _median(mover, target))

    return [Contest(f"{PAGE} of {IMAGES}: {case}", "ms", [contender(query)]) for case, query in QUERIES.items()]


def _median(mover: HttpServer, target: str) -> float:
    with closing(_connection(mover)) as connection:
        return statistics.median(_ask(connection, target) for _ in range(REQUESTS))


def _connection(mover: HttpServer) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(mover.base_url).netloc, timeout=60)


def _ask(connection: http.client.HTTPConnection, target: str) -> float:
    """The seconds of one request."""
    start = time.perf_counter()
    connection.request("GET", target)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != http.client.OK:
        raise ClientError(["GET", target], f"{answer.status} {body.decode(errors='replace')}")
    return time.perf_counter() - start


def _fill(file: Path) -> str:
    """Put so many images of all kinds into the registry; the id of one in the middle of the names."""
    from sqlalchemy import create_engine, insert

    from mover.library.registry.tables import IMAGES as TABLE
    from mover.library.registry.tables import PROPERTIES, TAGS

    chance = random.Random(6)
    ids = [str(uuid.UUID(int=chance.getrandbits(128), version=4)) for _ in range(IMAGES)]
    engine = create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        for start in range(0, IMAGES, ROWS_AT_ONCE):
            part = list(enumerate(ids))[start : start + ROWS_AT_ONCE]
            connection.execute(insert(TABLE), [_image(chance, number, image_id) for number, image_id in part])
            connection.execute(insert(PROPERTIES), [
                {"image_id": image_id, "name": name, "value": value}
                for number, image_id in part
                for name, value in (("os_type", "plan9" if number % 500 == 0 else "linux"), ("build", str(number)))
            ])  # fmt: skip
            connection.execute(
                insert(TAGS), [{"image_id": image_id, "tag": f"t{number % 7}"} for number, image_id in part]
            )
    engine.dispose()
    return ids[IMAGES // 2]


def _image(chance: random.Random, number: int, image_id: str) -> dict[str, Any]:
    """A row; names are in the order of their numbers."""
    created_us = 1_700_000_000_000_000 + chance.randrange(10**14)
    return {
        "id": image_id,
        "name": f"image-{number:06}",
        "state": "active" if number % 10 else "queued",
        "visibility": chance.choice(["public", "shared", "private", "community"]),
        "owner": f"tenant-{number % 20}",
        "size_bytes": chance.randrange(10**9),
        "disk_format": chance.choice(["raw", "qcow2", "vmdk", "iso"]),
        "container_format": chance.choice(["bare", "ovf"]),
        "created_at_us": created_us,
        "updated_at_us": created_us + 1,
    }
