"""The table of both dialects."""

from __future__ import annotations

import msgspec

from mover.front.dialect import CLOUDSTACK, DIALECTS, IMAGEIO, Dialect


def test_every_row_of_the_table_is_a_difference() -> None:
    """What both sides share is no dialect and does not stand in the table."""
    for field in msgspec.structs.fields(Dialect):
        assert getattr(IMAGEIO, field.name) != getattr(CLOUDSTACK, field.name), field.name


def test_a_ticket_finds_its_dialect_by_name() -> None:
    """Under the names that tickets carry."""
    assert DIALECTS == {"imageio": IMAGEIO, "cloudstack": CLOUDSTACK}
