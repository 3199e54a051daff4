"""Transfers: tickets that clients of the library have for its images."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "image_transfers",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("image_id", sa.String(36), sa.ForeignKey("images.id", ondelete="CASCADE"), nullable=False),
        sa.Column("ticket", sa.String(36), nullable=False),
        sa.Column("host", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("worker", sa.String(64)),
        sa.Column("direction", sa.String(16), nullable=False),
        sa.Column("format", sa.String(16), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("timeout_s", sa.Integer, nullable=False),
        sa.Column("store", sa.String(255)),
        sa.Column("upload", sa.String(32)),
        sa.Column("tenant", sa.String(255)),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
    )
    op.create_index("transfers_by_image", "image_transfers", ["image_id"])
    op.create_index("transfers_by_host", "image_transfers", ["host"])
