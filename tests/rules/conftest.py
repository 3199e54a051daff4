"""Hypothesis for the rules: no deadline, since a loaded machine is no failure of a rule."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("rules", deadline=None)
settings.load_profile("rules")
