"""Times in the views: the registry's microseconds since 1970 as ISO 8601, and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_v1(us: int) -> str:
    """UTC with microseconds, without a zone: 2026-11-20T22:10:32.333388."""
    return f"{_time(us):%Y-%m-%dT%H:%M:%S.%f}"


def to_v2(us: int) -> str:
    """UTC, in whole seconds: 2026-11-20T22:10:32Z."""
    return f"{_time(us):%Y-%m-%dT%H:%M:%SZ}"


def from_iso(text: str) -> int:
    """Microseconds of an ISO 8601 time; UTC unless it names a zone. Raises ValueError."""
    # A `+` that a client forgot to encode in a query arrives as a blank.
    found = datetime.fromisoformat(text.strip().replace(" ", "+") if "T" in text else text.strip())
    aware = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return (aware - EPOCH) // timedelta(microseconds=1)


def _time(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)
