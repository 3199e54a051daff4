"""Nothing is left open by any test of the stores."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lane.descriptors import descriptors, left_since


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    before = descriptors()
    yield
    assert left_since(before) == []
