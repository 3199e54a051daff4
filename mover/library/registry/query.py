"""The SQL that answers a query."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Select,
    Table,
    and_,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
    tuple_,
    union,
)

from mover.library.queries import SORT_PROPERTY, Comparison, Query
from mover.library.records import ImageRecord, MemberStatus, Visibility
from mover.library.registry.tables import IMAGES, MEMBERS, PROPERTIES, SORTED_BY, TAGS, VALUE_INDEXED
from mover.library.states import State

# The numbers as the index has them: bound parameters would not be known to be the same.
_INDEXED: tuple[ColumnElement[Any], ...] = (literal_column("1"), literal_column(str(VALUE_INDEXED)))

# As the index of the others has it, too.
_ACTIVE: ColumnElement[str] = literal_column(f"'{State.ACTIVE}'")

# Fewer images than these are found by what they have, and sorted.
FEW = 1000

COMPARISONS: dict[Comparison, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "neq": operator.ne,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
    "outside": lambda column, bounds: or_(column < bounds[0], column >= bounds[1]),
}


def statement(query: Query, rare: frozenset[str] | None = None) -> Select[Any]:
    """The SELECT of the images' rows. `rare` are the properties and tags that few images have, None if not known."""
    found = select(IMAGES).where(*_conditions(query, rare))
    order = _order(query.sort)
    if query.marker is not None:
        found = found.where(_after(query.marker, order))
    found = found.order_by(*(column.desc() if down else column.asc() for _, column, down in order))
    return found.limit(query.limit)


def rare_ones(connection: Connection, query: Query) -> frozenset[str] | None:
    """Which of the query's properties and tags few images have; None of PostgreSQL, which has statistics of them.

    SQLite takes the way that a condition is written: from the images to their tags it walks along all of a million for
    a tag that none has; from the properties to their images it sorts all of a million for a value that all have.
    """
    if connection.dialect.name == "postgresql" or not (query.properties or query.tags):
        return None
    asked = _having(query)
    return frozenset(what for what, (ids, _) in asked.items() if len(connection.execute(ids.limit(FEW)).all()) < FEW)


def _conditions(query: Query, rare: frozenset[str] | None) -> list[ColumnElement[bool]]:
    found = [*_existence(query), *_visibility(query)]
    found += [COMPARISONS[comparison](_column(name), value) for name, comparison, value in query.conditions]
    if any(
        name == "state" and comparison == "eq" and value != State.ACTIVE for name, comparison, value in query.conditions
    ):
        found.append(IMAGES.c.state != _ACTIVE)
    found += [IMAGES.c[name].in_(values) for name, values in query.one_of.items()]
    for what, (ids, table) in _having(query).items():
        if rare is None or what in rare:
            found.append(IMAGES.c.id.in_(ids))
        else:
            found.append(ids.where(table.c.image_id == IMAGES.c.id).correlate(IMAGES).exists())
    return found


def _column(name: str) -> ColumnElement[Any]:
    """What a condition compares; `size_or_0` is v1's size, which is 0 until it is known."""
    return SORTED_BY["size_bytes"] if name == "size_or_0" else IMAGES.c[name]


def _existence(query: Query) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if query.deleted is None:
        found.append(IMAGES.c.deleted_at_us.is_(None))
    elif query.deleted:
        found.append(IMAGES.c.deleted_at_us.is_not(None))
    if query.hides_failed:
        found.append(IMAGES.c.state != State.FAILED)
    return found


def _visibility(query: Query) -> list[ColumnElement[bool]]:
    viewer, visibility = query.viewer, IMAGES.c.visibility
    owned = false() if viewer.tenant is None else IMAGES.c.owner == viewer.tenant
    found: list[ColumnElement[bool]] = []
    if query.visibility is None:
        found.append(or_(visibility != Visibility.COMMUNITY, owned))
    elif query.visibility != "all":
        found.append(visibility == query.visibility)
    if query.not_public:
        found.append(visibility != Visibility.PUBLIC)
    if not viewer.is_admin and query.visibility == Visibility.PRIVATE:
        found.append(owned)  # said alone, so that their index is walked
    elif not viewer.is_admin and query.visibility == Visibility.SHARED and viewer.tenant is not None:
        found.append(IMAGES.c.id.in_(_theirs_shared(viewer.tenant, query.member_status)))
    elif not viewer.is_admin:
        seen = [visibility.in_([Visibility.PUBLIC, Visibility.COMMUNITY]), owned]
        if viewer.tenant is not None:
            seen.append(_shared_with(viewer.tenant, query.member_status))
        found.append(or_(*seen))
    return found


def _shared_with(tenant: str, status: MemberStatus | None) -> ColumnElement[bool]:
    return and_(IMAGES.c.visibility == Visibility.SHARED, IMAGES.c.id.in_(_memberships(tenant, status)))


def _memberships(tenant: str, status: MemberStatus | None) -> Select[Any]:
    member = [MEMBERS.c.member == tenant]
    if status is not None:
        member.append(MEMBERS.c.status == status)
    return select(MEMBERS.c.image_id).where(*member)


def _theirs_shared(tenant: str, status: MemberStatus | None) -> CompoundSelect[Any]:
    """Ids: what they share and what is shared with them. Of a million images they are few; a walk would read all."""
    images = IMAGES.alias("owned")
    owned = select(images.c.id).where(images.c.owner == tenant, images.c.visibility == Visibility.SHARED)
    return union(owned, _memberships(tenant, status))


def _having(query: Query) -> dict[str, tuple[Select[Any], Table]]:
    """What the images must have: the ids of those that do, and the table that says so."""
    found = {f"property {name}": (_with_property(name, value), PROPERTIES) for name, value in query.properties.items()}
    return found | {f"tag {tag}": (_with_tag(tag), TAGS) for tag in query.tags}


def _with_tag(tag: str) -> Select[Any]:
    """The ids of the images that have it."""
    return select(TAGS.c.image_id).where(TAGS.c.tag == tag)


def _with_property(name: str, value: str) -> Select[Any]:
    """The ids of the images that have it. In two parts, the first as the index has it.

    `value = …` beside it would have SQLite put the constant into the first part, too, and leave the index aside.
    """
    start = func.substr(PROPERTIES.c.value, *_INDEXED)
    parts = [PROPERTIES.c.name == name, start == value[:VALUE_INDEXED]]
    if len(value) >= VALUE_INDEXED:
        parts.append(func.substr(PROPERTIES.c.value, VALUE_INDEXED + 1) == value[VALUE_INDEXED:])
    return select(PROPERTIES.c.image_id).where(*parts)


# -- order -----------------------------------------------------------------------------------------------------

_Ordered = list[tuple[str, ColumnElement[Any], bool]]


def _order(sort: tuple[tuple[str, bool], ...]) -> _Ordered:
    """The keys, then what breaks ties, in the direction of the last key: so one index is walked in one direction."""
    down = sort[-1][1]
    names = {name for name, _ in sort}
    ties = [(name, down) for name in ("created_at_us", "id") if name not in names]
    return [(name, _sort_column(name), down) for name, down in (*sort, *ties)]


def _sort_column(name: str) -> ColumnElement[Any]:
    if name in SORTED_BY:
        return SORTED_BY[name]
    if not name.startswith(SORT_PROPERTY):
        return func.coalesce(IMAGES.c[name], "")
    of_image = (PROPERTIES.c.image_id == IMAGES.c.id, PROPERTIES.c.name == name.removeprefix(SORT_PROPERTY))
    return func.coalesce(select(PROPERTIES.c.value).where(*of_image).scalar_subquery(), "")


def _after(marker: ImageRecord, order: _Ordered) -> ColumnElement[bool]:
    """What comes after the marker:  a > A, or a = A and b > B, or a = A and b = B and c > C.

    In one direction it is said as (a, b, c) > (A, B, C): then PostgreSQL starts there, also among half a million images
    that have the same `a`. That a >= A is said beside it: all by which SQLite starts in an expression's index.
    """
    _, first, down = order[0]
    value = _sort_value(marker, order[0][0])
    start = first <= value if down else first >= value
    if all(one_down == down for _, _, one_down in order):
        here = tuple_(*(column for _, column, _ in order))
        there = tuple_(*(literal(_sort_value(marker, name), column.type) for name, column, _ in order))
        return and_(start, here < there if down else here > there)
    cases: list[ColumnElement[bool]] = []
    equal: list[ColumnElement[bool]] = []
    for name, column, down in order:
        value = _sort_value(marker, name)
        cases.append(and_(*equal, column < value if down else column > value))
        equal.append(column == value)
    return and_(start, or_(*cases))


def _sort_value(marker: ImageRecord, name: str) -> object:
    if name.startswith(SORT_PROPERTY):
        return marker.properties.get(name.removeprefix(SORT_PROPERTY)) or ""
    value = getattr(marker, name)
    if value is None:
        return 0 if name == "size_bytes" else ""
    return str(value) if isinstance(value, str) else value
