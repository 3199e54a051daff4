"""Libraries for tests: a real `mover serve` on SQLite or PostgreSQL, and the registry by itself on both."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mover.library.registry import migrate
from mover.library.registry.registry import Registry
from tests.harness.mover import PROGRAM, Mover
from tests.harness.postgres import Postgres
from tests.library.databases import DATABASES, empty_database
from tests.library.service import Service

FAKE = (sys.executable, "-m", "tests.library.fake_mover")


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of one kind and of the other."""
    return empty_database(request, tmp_path)


@pytest.fixture
def registry(database: str) -> Iterator[Registry]:
    """A registry without images, on SQLite and on PostgreSQL."""
    migrate.upgrade(database)
    found = Registry(database)
    yield found
    found.close()


@pytest.fixture(scope="module", params=DATABASES)
def service(request: pytest.FixtureRequest, module_room: Path) -> Iterator[Service]:
    """`mover serve` with nothing configured, and with one line that names a PostgreSQL; its bytes are a fake's.

    The store's bytes have tests of their own; here they would start a worker for each upload.
    """
    settings = {}
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        settings = {"library": {"database": server.database()}}
    room = module_room / str(request.param)
    room.mkdir()
    with ExitStack() as stack:
        mover = Mover(room, {}, settings, front_ends=2, program=FAKE)
        stack.callback(mover.close)
        yield Service(mover.start())
        mover.assert_log_clean()


@pytest.fixture(scope="module", params=["fake", "real"])
def either(request: pytest.FixtureRequest, module_room: Path) -> Iterator[Service]:
    """A service with the fake's bytes, and one with a store's: what holds for both keeps the fake honest."""
    room = module_room / str(request.param)
    room.mkdir()
    with ExitStack() as stack:
        mover = Mover(room, {}, front_ends=2, program=FAKE if request.param == "fake" else PROGRAM)
        stack.callback(mover.close)
        yield Service(mover.start())
        mover.assert_log_clean()
