"""A Mover without images, for tests that leave it as they found it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.harness.mover import Mover


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mover]:
    """One for all tests of a module."""
    with closing(Mover(tmp_path_factory.mktemp("house"), {})) as mover:
        yield mover.start()
