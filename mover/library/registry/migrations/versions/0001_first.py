"""The first tables of the image library."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

ALIVE = sa.text("deleted_at_us IS NULL")
WALKS = {
    "name": "coalesce(name, '')",
    "state": "coalesce(state, '')",
    "container_format": "coalesce(container_format, '')",
    "disk_format": "coalesce(disk_format, '')",
    "size": "coalesce(size_bytes, 0)",
    "updated": "updated_at_us",
    "created": None,
}


def upgrade() -> None:
    _images()
    _properties_and_tags()
    _members()
    _locations()


def _images() -> None:
    op.create_table(
        "images",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("name", sa.String(255)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("visibility", sa.String(16), nullable=False),
        sa.Column("owner", sa.String(255)),
        sa.Column("size_bytes", sa.BigInteger),
        sa.Column("virtual_size_bytes", sa.BigInteger),
        sa.Column("disk_format", sa.String(20)),
        sa.Column("container_format", sa.String(20)),
        sa.Column("md5", sa.String(32)),
        sa.Column("hash_algo", sa.String(64)),
        sa.Column("hash_value", sa.String(128)),
        sa.Column("min_disk_gb", sa.Integer, nullable=False),
        sa.Column("min_ram_mb", sa.Integer, nullable=False),
        sa.Column("protected", sa.Boolean, nullable=False),
        sa.Column("hidden", sa.Boolean, nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("updated_at_us", sa.BigInteger, nullable=False),
        sa.Column("deleted_at_us", sa.BigInteger),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("upload", sa.String(32)),
        sa.Column("holder", sa.String(64)),
    )
    for name, expression in WALKS.items():
        keys: list[str | sa.TextClause] = [*([sa.text(expression)] if expression else []), "created_at_us", "id"]
        op.create_index(f"images_by_{name}", "images", keys, sqlite_where=ALIVE, postgresql_where=ALIVE)
    for name, column in (
        ("images_named", "name"),
        ("images_owned", "owner"),
        ("images_with_md5", "md5"),
        ("images_with_hash", "hash_value"),
        ("images_held", "holder"),
    ):
        op.create_index(name, "images", [column])


def _properties_and_tags() -> None:
    op.create_table(
        "image_properties",
        sa.Column("image_id", sa.String(36), sa.ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("value", sa.Text),
    )
    op.create_index("properties_by_value", "image_properties", ["name", sa.text("substr(value, 1, 64)")])
    op.create_table(
        "image_tags",
        sa.Column("image_id", sa.String(36), sa.ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("tag", sa.String(255), primary_key=True),
    )
    op.create_index("tags_by_name", "image_tags", ["tag"])


def _members() -> None:
    op.create_table(
        "image_members",
        sa.Column("image_id", sa.String(36), sa.ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("member", sa.String(255), primary_key=True),
        sa.Column("can_share", sa.Boolean, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("updated_at_us", sa.BigInteger, nullable=False),
    )
    op.create_index("members_by_member", "image_members", ["member"])


def _locations() -> None:
    op.create_table(
        "image_locations",
        # SQLite counts up only columns that it calls INTEGER.
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("image_id", sa.String(36), sa.ForeignKey("images.id", ondelete="CASCADE"), nullable=False),
        sa.Column("store", sa.String(255), nullable=False),
        sa.Column("uri", sa.Text, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
    )
    op.create_index("locations_by_image", "image_locations", ["image_id"])
    op.create_index("locations_by_status", "image_locations", ["status"])
