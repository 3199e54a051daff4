"""Indexes for lists of a million images: a tenant's in order, and those in the states that few are in."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

FEW = sa.text("deleted_at_us IS NULL AND state <> 'active'")


def upgrade() -> None:
    op.drop_index("images_owned", "images")
    op.create_index("images_owned", "images", ["owner", "created_at_us", "id"])
    walk = ["state", "created_at_us", "id"]
    op.create_index("images_not_active", "images", walk, sqlite_where=FEW, postgresql_where=FEW)
