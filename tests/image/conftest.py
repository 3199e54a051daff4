"""Hypothesis for the worker's rules (a loaded machine is no failure of a rule), and nothing left open by any test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.lane.descriptors import descriptors, left_since

settings.register_profile("image", deadline=None)
settings.load_profile("image")


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    before = descriptors()
    yield
    assert left_since(before) == []
