"""The version of this program, as it was installed."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed


@cache
def version() -> str:
    """Like `0.1.0`."""
    try:
        return installed("image-mover")
    except PackageNotFoundError:
        return "unknown"
