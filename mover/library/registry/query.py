"""The SQL that answers a query."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, false, func, literal_column, or_, select

from mover.library.queries import SORT_PROPERTY, Comparison, Query
from mover.library.records import ImageRecord, MemberStatus, Visibility
from mover.library.registry.tables import IMAGES, MEMBERS, PROPERTIES, SORTED_BY, TAGS, VALUE_INDEXED
from mover.library.states import State

# The numbers as the index has them: bound parameters would not be known to be the same.
_INDEXED: tuple[ColumnElement[Any], ...] = (literal_column("1"), literal_column(str(VALUE_INDEXED)))

COMPARISONS: dict[Comparison, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "neq": operator.ne,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
    "outside": lambda column, bounds: or_(column < bounds[0], column >= bounds[1]),
}


def statement(query: Query) -> Select[Any]:
    """The SELECT of the images' rows."""
    found = select(IMAGES).where(*_conditions(query))
    order = _order(query.sort)
    if query.marker is not None:
        found = found.where(_after(query.marker, order))
    found = found.order_by(*(column.desc() if down else column.asc() for _, column, down in order))
    return found.limit(query.limit)


def _conditions(query: Query) -> list[ColumnElement[bool]]:
    found = [*_existence(query), *_visibility(query)]
    found += [COMPARISONS[comparison](_column(name), value) for name, comparison, value in query.conditions]
    found += [IMAGES.c[name].in_(values) for name, values in query.one_of.items()]
    found += [_has_property(name, value) for name, value in query.properties.items()]
    found += [select(TAGS).where(TAGS.c.image_id == IMAGES.c.id, TAGS.c.tag == tag).exists() for tag in query.tags]
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
    if not viewer.is_admin:
        seen = [visibility.in_([Visibility.PUBLIC, Visibility.COMMUNITY]), owned]
        if viewer.tenant is not None:
            seen.append(_shared_with(viewer.tenant, query.member_status))
        found.append(or_(*seen))
    return found


def _shared_with(tenant: str, status: MemberStatus | None) -> ColumnElement[bool]:
    member = [MEMBERS.c.member == tenant]
    if status is not None:
        member.append(MEMBERS.c.status == status)
    return and_(IMAGES.c.visibility == Visibility.SHARED, IMAGES.c.id.in_(select(MEMBERS.c.image_id).where(*member)))


def _has_property(name: str, value: str) -> ColumnElement[bool]:
    """In two parts, the first as the index has it. `value = …` beside it would have SQLite put the constant into the
    first part, too, and leave the index aside.
    """
    start = func.substr(PROPERTIES.c.value, *_INDEXED)
    parts = [PROPERTIES.c.name == name, start == value[:VALUE_INDEXED]]
    if len(value) >= VALUE_INDEXED:
        parts.append(func.substr(PROPERTIES.c.value, VALUE_INDEXED + 1) == value[VALUE_INDEXED:])
    return IMAGES.c.id.in_(select(PROPERTIES.c.image_id).where(*parts))


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
    """What comes after the marker:  a > A, or a = A and b > B, or a = A and b = B and c > C."""
    cases: list[ColumnElement[bool]] = []
    equal: list[ColumnElement[bool]] = []
    for name, column, down in order:
        value = _sort_value(marker, name)
        cases.append(and_(*equal, column < value if down else column > value))
        equal.append(column == value)
    _, first, down = order[0]
    value = _sort_value(marker, order[0][0])
    # Said twice, since no database makes the start of a walk along an index from the cases.
    return and_(first <= value if down else first >= value, or_(*cases))


def _sort_value(marker: ImageRecord, name: str) -> object:
    if name.startswith(SORT_PROPERTY):
        return marker.properties.get(name.removeprefix(SORT_PROPERTY)) or ""
    value = getattr(marker, name)
    if value is None:
        return 0 if name == "size_bytes" else ""
    return str(value) if isinstance(value, str) else value
