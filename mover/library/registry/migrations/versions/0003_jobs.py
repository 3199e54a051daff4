"""Jobs that outlive every process."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "image_jobs",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("image_id", sa.String(36), sa.ForeignKey("images.id", ondelete="CASCADE"), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("input", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("owner", sa.String(255)),
        sa.Column("user", sa.String(255)),
        sa.Column("host", sa.String(64)),
        sa.Column("holder", sa.String(64)),
        sa.Column("holds", sa.String(36), unique=True),
        sa.Column("cancel", sa.Boolean, nullable=False),
        sa.Column("done_bytes", sa.BigInteger, nullable=False),
        sa.Column("size_bytes", sa.BigInteger),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("updated_at_us", sa.BigInteger, nullable=False),
        sa.Column("due_at_us", sa.BigInteger, nullable=False),
        sa.Column("ended_at_us", sa.BigInteger),
    )
    op.create_index("jobs_by_image", "image_jobs", ["image_id", "created_at_us"])
    op.create_index("jobs_by_state", "image_jobs", ["state", "due_at_us"])
    op.create_index("jobs_held", "image_jobs", ["holder"])
    op.create_index("jobs_by_time", "image_jobs", ["created_at_us", "id"])
    op.create_index("jobs_ended", "image_jobs", ["ended_at_us"])
