"""Hypothesis for the worker's rules: no deadline, since a loaded machine is no failure of a rule."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("image", deadline=None)
settings.load_profile("image")
