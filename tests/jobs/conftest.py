"""A service with two stores for a module, and disks in one room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.mover import Mover
from tests.jobs.jobs import Jobs, tables


@pytest.fixture(scope="module")
def jobs(module_room: Path) -> Iterator[Jobs]:
    """Two front ends, so that who is asked is not always who works."""
    own = module_room / "mover"
    own.mkdir()
    mover = Mover(own, {}, tables(module_room), front_ends=2)
    try:
        yield Jobs(mover.start(), module_room)
        mover.assert_log_clean()
    finally:
        mover.close()
