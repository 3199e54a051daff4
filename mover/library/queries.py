"""What a list of images asks for. registry/query.py makes SQL of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from mover.library.records import ImageRecord, MemberStatus, Visibility

# `outside` has a pair of bounds: below the first, or not below the second.
Comparison = Literal["eq", "neq", "gt", "gte", "lt", "lte", "outside"]


# A sort key that begins so is a property's value, as text.
SORT_PROPERTY = "property:"


class Viewer(msgspec.Struct, frozen=True):
    """Who looks. An admin sees everything; `tenant` is None for the anonymous, who see what is public."""

    tenant: str | None
    is_admin: bool = False


class Query(msgspec.Struct, frozen=True):
    """Which images, in which order, from where, how many. All conditions must hold.

    `conditions` are (column, or `size_or_0`, comparison, value); `one_of` are columns and the values allowed; `sort`
    are keys of tables.SORTED_BY and whether they go down, and ties are broken by created_at and id. Other columns of
    text, and properties, are sort keys, too, but have no index: each page sorts all images. `visibility` None
    leaves out other tenants' community images. `deleted` None leaves out what is gone, True has only that, False is
    both.
    """

    viewer: Viewer
    conditions: tuple[tuple[str, Comparison, Any], ...] = ()
    one_of: Mapping[str, tuple[Any, ...]] = {}
    properties: Mapping[str, str] = {}
    tags: tuple[str, ...] = ()
    visibility: Visibility | Literal["all"] | None = None
    not_public: bool = False
    member_status: MemberStatus | None = MemberStatus.ACCEPTED
    deleted: bool | None = None
    hides_failed: bool = False
    sort: tuple[tuple[str, bool], ...] = (("created_at_us", True),)
    marker: ImageRecord | None = None
    limit: int = 25
