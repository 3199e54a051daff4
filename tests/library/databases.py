"""Both kinds of database, for fixtures of any scope."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.postgres import Postgres

DATABASES = ("sqlite", "postgresql")


def empty_database(request: pytest.FixtureRequest, room: Path) -> str:
    """The URL of an empty database of the kind that the fixture's parameter says; a file is in `room`."""
    if request.param == "sqlite":
        return f"sqlite:///{room}/library.sqlite"
    server: Postgres = request.getfixturevalue("postgres")
    return server.database()
