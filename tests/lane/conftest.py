"""Every test here gives back what it took, and hypothesis has no deadline: a loaded machine breaks no rule."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.lane.descriptors import descriptors, left_since

settings.register_profile("lane", deadline=None)
settings.load_profile("lane")


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    before = descriptors()
    yield
    assert left_since(before) == []
