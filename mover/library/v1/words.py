"""v1's words for what the registry knows: JSON objects and headers."""

from __future__ import annotations

from mover.library.header_text import safe
from mover.library.records import ImageRecord, Member, Visibility
from mover.library.states import GONE
from mover.library.statuses import status_of
from mover.library.times import to_v1

Headers = list[tuple[str, str]]

BRIEF = ("id", "name", "size", "disk_format", "container_format", "checksum")
PREFIX = "X-Image-Meta-"


def fields(image: ImageRecord) -> dict[str, object]:
    """An image's fields, without its properties."""
    return {
        "id": image.id,
        "name": image.name,
        "size": image.size_bytes or 0,
        "virtual_size": image.virtual_size_bytes,
        "checksum": image.md5,
        "status": status_of(image.state),
        "disk_format": image.disk_format,
        "container_format": image.container_format,
        "owner": image.owner,
        "is_public": image.visibility is Visibility.PUBLIC,
        "protected": image.protected,
        "deleted": image.state in GONE,
        "min_disk": image.min_disk_gb,
        "min_ram": image.min_ram_mb,
        "created_at": to_v1(image.created_at_us),
        "updated_at": to_v1(image.updated_at_us),
        "deleted_at": None if image.deleted_at_us is None else to_v1(image.deleted_at_us),
    }


def brief(image: ImageRecord) -> dict[str, object]:
    """An image in the short list."""
    found = fields(image)
    return {name: found[name] for name in BRIEF}


def detail(image: ImageRecord) -> dict[str, object]:
    """An image in the long list, and in the answers to changes."""
    return {**fields(image), "properties": dict(image.properties)}


def headers(image: ImageRecord) -> Headers:
    """An image as headers: every field and property that has a value."""
    found = [
        (PREFIX + name.capitalize(), safe(str(value))) for name, value in fields(image).items() if value is not None
    ]
    found += [
        (f"{PREFIX}Property-{safe(name, is_name=True)}", safe(value))
        for name, value in image.properties.items()
        if value is not None
    ]
    return found + etag(image)


def etag(image: ImageRecord) -> Headers:
    """The checksum, without quotes, as v1 has always sent it; nothing while there is none."""
    return [] if image.md5 is None else [("ETag", image.md5)]


def member(record: Member) -> dict[str, object]:
    """A member in an image's list."""
    return {"member_id": record.member, "can_share": record.can_share}


def shared_image(record: Member) -> dict[str, object]:
    """A membership in a tenant's list."""
    return {"image_id": record.image_id, "can_share": record.can_share}
