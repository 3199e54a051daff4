"""Fixtures that outlive a test: a PostgreSQL for the session, and a module's room."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.fixtures import RAM
from tests.harness.postgres import Postgres, running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The session's PostgreSQL."""
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def module_room() -> Iterator[Path]:
    """A directory for a module's service, with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="mover-test-", dir=RAM if RAM.is_dir() else None) as name:
        yield Path(name)
