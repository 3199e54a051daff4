"""The registry's tables, as the code uses them. migrations/ makes them; a test compares the two.

Times are microseconds since 1970, UTC: exact, and sorted alike by both databases.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    literal_column,
    text,
)

METADATA = MetaData()

# Longest names, in characters: Glance's columns.
NAME = 255
# Of a property's value, what its index holds: an entry of PostgreSQL's may have 2.7 KB.
VALUE_INDEXED = 64

# SQLite counts up only columns that it calls INTEGER.
_COUNTING = BigInteger().with_variant(Integer, "sqlite")

IMAGES = Table(
    "images",
    METADATA,
    Column("id", String(36), primary_key=True),
    Column("name", String(NAME)),
    Column("state", String(16), nullable=False),
    Column("visibility", String(16), nullable=False),
    Column("owner", String(NAME)),
    Column("size_bytes", BigInteger),
    Column("virtual_size_bytes", BigInteger),
    Column("disk_format", String(20)),
    Column("container_format", String(20)),
    Column("md5", String(32)),
    Column("hash_algo", String(64)),
    Column("hash_value", String(128)),
    Column("min_disk_gb", Integer, nullable=False, default=0),
    Column("min_ram_mb", Integer, nullable=False, default=0),
    Column("protected", Boolean, nullable=False, default=False),
    Column("hidden", Boolean, nullable=False, default=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger, nullable=False),
    # Of those that are deleted or about to be: all other lists leave them out by it.
    Column("deleted_at_us", BigInteger),
    # Grows with each change: who changes an image says which revision they have seen.
    Column("revision", BigInteger, nullable=False, default=1),
    # The token of the upload that holds the image in SAVING, and the front end that receives it: HOST/PROCESS.
    Column("upload", String(32)),
    Column("holder", String(64)),
)

PROPERTIES = Table(
    "image_properties",
    METADATA,
    Column("image_id", String(36), ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    Column("name", String(NAME), primary_key=True),
    Column("value", Text),
)
Index("properties_by_value", PROPERTIES.c.name, text(f"substr(value, 1, {VALUE_INDEXED})"))

TAGS = Table(
    "image_tags",
    METADATA,
    Column("image_id", String(36), ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    Column("tag", String(NAME), primary_key=True),
)
Index("tags_by_name", TAGS.c.tag)

MEMBERS = Table(
    "image_members",
    METADATA,
    Column("image_id", String(36), ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    Column("member", String(NAME), primary_key=True),
    Column("can_share", Boolean, nullable=False, default=False),
    Column("status", String(16), nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger, nullable=False),
)
Index("members_by_member", MEMBERS.c.member)

LOCATIONS = Table(
    "image_locations",
    METADATA,
    Column("number", _COUNTING, primary_key=True, autoincrement=True),
    Column("image_id", String(36), ForeignKey("images.id", ondelete="CASCADE"), nullable=False),
    Column("store", String(NAME), nullable=False),
    Column("uri", Text, nullable=False),
    # JSON.
    Column("metadata", Text, nullable=False),
    Column("status", String(16), nullable=False),
    # The directory of a file store, by the name that it bears itself; none where every host reaches the bytes.
    Column("volume", String(32)),
)
Index("locations_by_image", LOCATIONS.c.image_id)
# Of 10 million locations a few wait to be removed: looked for by every host, all the time.
_DOOMED = text("status = 'pending_delete'")
Index("locations_to_remove", LOCATIONS.c.number, sqlite_where=_DOOMED, postgresql_where=_DOOMED)

# The hosts that share the registry. Who has not been seen for `library.host_dead_s` is dead.
HOSTS = Table(
    "hosts",
    METADATA,
    Column("id", String(32), primary_key=True),
    # What its kernel calls it, for people.
    Column("name", String(NAME), nullable=False),
    # JSON: the directories of file stores that it reaches.
    Column("volumes", Text, nullable=False),
    # By the database's clock, the only one that all hosts share.
    Column("seen_at_us", BigInteger, nullable=False),
)

# Tickets that clients of the library have for an image. `worker` is the process that opens or closes it, `upload` the
# token by which it holds the image in SAVING.
TRANSFERS = Table(
    "image_transfers",
    METADATA,
    Column("id", String(36), primary_key=True),
    Column("image_id", String(36), ForeignKey("images.id", ondelete="CASCADE"), nullable=False),
    Column("ticket", String(36), nullable=False),
    Column("host", String(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("worker", String(64)),
    Column("direction", String(16), nullable=False),
    Column("format", String(16), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("timeout_s", Integer, nullable=False),
    Column("store", String(NAME)),
    Column("upload", String(32)),
    Column("tenant", String(NAME)),
    Column("created_at_us", BigInteger, nullable=False),
)
Index("transfers_by_image", TRANSFERS.c.image_id)
Index("transfers_by_host", TRANSFERS.c.host)

JOBS = Table(
    "image_jobs",
    METADATA,
    Column("id", String(36), primary_key=True),
    Column("image_id", String(36), ForeignKey("images.id", ondelete="CASCADE"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    # JSON, both.
    Column("input", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("owner", String(NAME)),
    Column("user", String(NAME)),
    # The only host that may run it; none: any.
    Column("host", String(64)),
    # The front end that runs it: HOST/PROCESS, as images have theirs.
    Column("holder", String(64)),
    # The image, while this job keeps others from it: of two that begin at once one is refused.
    Column("holds", String(36), unique=True),
    Column("cancel", Boolean, nullable=False),
    Column("done_bytes", BigInteger, nullable=False),
    Column("size_bytes", BigInteger),
    Column("tries", Integer, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger, nullable=False),
    Column("due_at_us", BigInteger, nullable=False),
    Column("ended_at_us", BigInteger),
)
Index("jobs_by_image", JOBS.c.image_id, JOBS.c.created_at_us)
Index("jobs_by_state", JOBS.c.state, JOBS.c.due_at_us)
Index("jobs_held", JOBS.c.holder)
Index("jobs_by_time", JOBS.c.created_at_us, JOBS.c.id)
Index("jobs_ended", JOBS.c.ended_at_us)

# What lists are sorted by. Values that are not there sort as the empty text, or as 0, in both databases. A state is
# always there: so written, the index is for sorting alone. For `state = 'active'`, which most images are, SQLite would
# prefer it to the walk in order of the name, read nearly all of them and sort them: 390 ms instead of 7.
SORTED_BY: dict[str, ColumnElement[Any]] = {
    "name": literal_column("coalesce(images.name, '')", String),
    "state": literal_column("coalesce(images.state, '')", String),
    "container_format": literal_column("coalesce(images.container_format, '')", String),
    "disk_format": literal_column("coalesce(images.disk_format, '')", String),
    "size_bytes": literal_column("coalesce(images.size_bytes, 0)", BigInteger),
    "id": IMAGES.c.id,
    "created_at_us": IMAGES.c.created_at_us,
    "updated_at_us": IMAGES.c.updated_at_us,
}

# What a page of a list walks along: in order of one of these, until it has enough. Whatever was deleted is not in them.
_WALKS = {
    "name": "coalesce(name, '')",
    "state": "coalesce(state, '')",
    "container_format": "coalesce(container_format, '')",
    "disk_format": "coalesce(disk_format, '')",
    "size": "coalesce(size_bytes, 0)",
    "updated": "updated_at_us",
    "created": None,
}
_ALIVE = text("deleted_at_us IS NULL")
for _name, _expression in _WALKS.items():
    Index(
        f"images_by_{_name}",
        *([text(_expression)] if _expression else []),
        IMAGES.c.created_at_us,
        IMAGES.c.id,
        sqlite_where=_ALIVE,
        postgresql_where=_ALIVE,
        _table=IMAGES,
    )
# What finds few images among many.
Index("images_named", IMAGES.c.name)
# A tenant's images, in the order of lists: of 100,000 a page is not sorted out of all.
Index("images_owned", IMAGES.c.owner, IMAGES.c.created_at_us, IMAGES.c.id)
Index("images_with_md5", IMAGES.c.md5)
Index("images_with_hash", IMAGES.c.hash_value)
# Most images are ACTIVE; a list of others would read all to find them. Queries say that they are others (query.py).
_FEW = text("deleted_at_us IS NULL AND state <> 'active'")
Index(
    "images_not_active",
    IMAGES.c.state,
    IMAGES.c.created_at_us,
    IMAGES.c.id,
    sqlite_where=_FEW,
    postgresql_where=_FEW,
)
# What is looked for in the background: uploads under way, few at any time.
_HELD = text("holder IS NOT NULL")
Index("images_held", IMAGES.c.holder, sqlite_where=_HELD, postgresql_where=_HELD)
