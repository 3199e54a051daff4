"""Rows to records and back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, select

from mover.library.records import ImageRecord, Location, LocationStatus, Member, MemberStatus, Visibility
from mover.library.registry.tables import LOCATIONS, PROPERTIES, TAGS
from mover.library.states import State


def images(connection: Connection, rows: Sequence[Row[Any]]) -> list[ImageRecord]:
    """The records of these rows of IMAGES, with what stands in the other tables: one more query for each of them."""
    ids = [row.id for row in rows]
    if not ids:
        return []
    properties: dict[str, dict[str, str | None]] = defaultdict(dict)
    tags: dict[str, list[str]] = defaultdict(list)
    for row in connection.execute(select(PROPERTIES).where(PROPERTIES.c.image_id.in_(ids))):
        properties[row.image_id][row.name] = row.value
    for row in connection.execute(select(TAGS).where(TAGS.c.image_id.in_(ids)).order_by(TAGS.c.tag)):
        tags[row.image_id].append(row.tag)
    locations = _locations(connection, ids)
    return [
        _image(row, properties.get(row.id, {}), tuple(tags.get(row.id, ())), tuple(locations.get(row.id, ())))
        for row in rows
    ]


def _image(
    row: Row[Any], properties: Mapping[str, str | None], tags: tuple[str, ...], locations: tuple[Location, ...]
) -> ImageRecord:
    facts = dict(row._mapping)
    facts["state"] = State(facts["state"])
    facts["visibility"] = Visibility(facts["visibility"])
    return ImageRecord(**facts, properties=properties, tags=tags, locations=locations)


def _locations(connection: Connection, ids: Sequence[str]) -> dict[str, list[Location]]:
    found: dict[str, list[Location]] = defaultdict(list)
    for row in connection.execute(select(LOCATIONS).where(LOCATIONS.c.image_id.in_(ids)).order_by(LOCATIONS.c.number)):
        found[row.image_id].append(location(row))
    return found


def location(row: Row[Any]) -> Location:
    """The record of a row of LOCATIONS."""
    metadata = msgspec.json.decode(row.metadata)
    return Location(row.store, row.uri, metadata, LocationStatus(row.status), row.number, row.volume or "")


def location_values(image_id: str, location: Location) -> dict[str, object]:
    """The row of a new location."""
    return {
        "image_id": image_id,
        "store": location.store,
        "uri": location.uri,
        "metadata": msgspec.json.encode(location.metadata).decode(),
        "status": str(location.status),
        "volume": location.volume or None,
    }


def members(rows: Iterable[Row[Any]]) -> list[Member]:
    """The records of rows of MEMBERS."""
    return [
        Member(row.image_id, row.member, row.can_share, MemberStatus(row.status), row.created_at_us, row.updated_at_us)
        for row in rows
    ]
