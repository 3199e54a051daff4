"""The stage as a fixture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.stage import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A stage; whatever a failed test left on it is ended."""
    one = Stage(tmp_path)
    try:
        yield one
    finally:
        one.close()
