"""Hosts that share the registry, whose directory a location is in, and indexes of what is few only."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

DOOMED = sa.text("status = 'pending_delete'")
HELD = sa.text("holder IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "hosts",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("volumes", sa.Text, nullable=False),
        sa.Column("seen_at_us", sa.BigInteger, nullable=False),
    )
    op.add_column("image_locations", sa.Column("volume", sa.String(32)))
    op.drop_index("locations_by_status", "image_locations")
    op.create_index("locations_to_remove", "image_locations", ["number"], sqlite_where=DOOMED, postgresql_where=DOOMED)
    op.drop_index("images_held", "images")
    op.create_index("images_held", "images", ["holder"], sqlite_where=HELD, postgresql_where=HELD)
