"""v2's words for what the registry knows, in both directions."""

from __future__ import annotations

from mover.library.records import ImageRecord, Member
from mover.library.statuses import status_of
from mover.library.times import to_v2

# v2's names of the registry's columns, where they differ.
COLUMNS = {
    "status": "state",
    "checksum": "md5",
    "size": "size_bytes",
    "virtual_size": "virtual_size_bytes",
    "min_disk": "min_disk_gb",
    "min_ram": "min_ram_mb",
    "os_hidden": "hidden",
    "os_hash_algo": "hash_algo",
    "os_hash_value": "hash_value",
    "created_at": "created_at_us",
    "updated_at": "updated_at_us",
}

# What v2 sets of an image beside its properties and tags, and only by these names.
WRITABLE = (
    "name",
    "disk_format",
    "container_format",
    "min_disk",
    "min_ram",
    "protected",
    "os_hidden",
    "visibility",
    "owner",
)
READ_ONLY = (
    "id",
    "status",
    "checksum",
    "size",
    "virtual_size",
    "os_hash_algo",
    "os_hash_value",
    "created_at",
    "updated_at",
    "direct_url",
    "self",
    "file",
    "schema",
    "stores",
)
# Names that are no property's either.
RESERVED = ("location", "locations", "members", "deleted", "deleted_at", "is_public")

ATTRIBUTES = frozenset({*WRITABLE, *READ_ONLY, *RESERVED, "tags"})


def column(name: str) -> str:
    """The registry's name of an attribute."""
    return COLUMNS.get(name, name)


def image(record: ImageRecord) -> dict[str, object]:
    """An image as v2 shows it. A property that would hide an attribute is not shown."""
    shown: dict[str, object] = {name: value for name, value in record.properties.items() if name not in ATTRIBUTES}
    return shown | {
        "id": record.id,
        "name": record.name,
        "status": status_of(record.state),
        "visibility": str(record.visibility),
        "owner": record.owner,
        "size": record.size_bytes,
        "virtual_size": record.virtual_size_bytes,
        "disk_format": record.disk_format,
        "container_format": record.container_format,
        "checksum": record.md5,
        "os_hash_algo": record.hash_algo,
        "os_hash_value": record.hash_value,
        "min_disk": record.min_disk_gb,
        "min_ram": record.min_ram_mb,
        "protected": record.protected,
        "os_hidden": record.hidden,
        "tags": list(record.tags),
        "created_at": to_v2(record.created_at_us),
        "updated_at": to_v2(record.updated_at_us),
        "self": f"/v2/images/{record.id}",
        "file": f"/v2/images/{record.id}/file",
        "schema": "/v2/schemas/image",
        **({"stores": ",".join(location.store for location in record.copies)} if record.copies else {}),
    }


def member(record: Member) -> dict[str, object]:
    """A member as v2 shows it."""
    return {
        "image_id": record.image_id,
        "member_id": record.member,
        "status": str(record.status),
        "created_at": to_v2(record.created_at_us),
        "updated_at": to_v2(record.updated_at_us),
        "schema": "/v2/schemas/member",
    }
