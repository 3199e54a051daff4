"""Lists against a brute-force model: any filters, any order, pages that lose and repeat nothing, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from mover.library.queries import Query, Viewer
from mover.library.records import ImageRecord, MemberStatus, NewImage, Visibility
from mover.library.registry import migrate
from mover.library.registry.registry import Registry
from mover.library.registry.tables import SORTED_BY
from tests.library.databases import DATABASES, empty_database
from tests.library.service import some_id

OWNERS = ("a", "b", None)
NAMES = (None, "", "x", "X", "y", "ä")
FORMATS = (None, "raw", "qcow2")
SIZES = (None, 0, 5, 7)
PROPERTIES: tuple[dict[str, str | None], ...] = ({}, {"os": "linux"}, {"os": "linux", "arch": "arm" * 40}, {"os": None})
TAGS = ((), ("t",), ("t", "u"))
IMAGES = 60


def populate(registry: Registry) -> list[ImageRecord]:
    """Images of all kinds, some of the same age."""
    images = []
    for number in range(IMAGES):
        facts = {
            "owner": OWNERS[number % 3],
            "name": NAMES[number % 6],
            "disk_format": FORMATS[(number // 2) % 3],
            "size_bytes": SIZES[(number // 3) % 4],
            "hidden": number % 7 == 0,
            "created_at_us": 1000 + number // 4,
            "updated_at_us": 2000 - number // 5,
        }
        new = NewImage(
            id=some_id(),
            visibility=list(Visibility)[(number // 5) % 4],
            facts=facts,
            properties=dict(PROPERTIES[number % 4]),
            tags=TAGS[number % 3],
        )
        image = registry.create(new)
        if number % 4 == 0:
            status = list(MemberStatus)[number // 4 % 3]
            registry.add_member(image.id, "b", can_share=False, status=status, limit=9)
        if number % 11 == 0:
            registry.delete(image.id)
        images.append(image)
    found = [registry.get(image.id) for image in images]
    return [image for image in found if image is not None]


Filled = tuple[Registry, list[ImageRecord], dict[str, MemberStatus]]


@pytest.fixture(scope="module", params=DATABASES)
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """A registry that is only read, all that is in it, and what `b` has said to its memberships."""
    database = empty_database(request, tmp_path_factory.mktemp("lists"))
    migrate.upgrade(database)
    with closing(Registry(database)) as registry:
        images = populate(registry)
        members = {one.image_id: one.status for image in images for one in registry.members(image.id)}
        yield registry, images, members


CONDITIONS = st.sampled_from(
    [
        ("name", "eq", "x"),
        ("disk_format", "eq", "raw"),
        ("size_bytes", "gte", 5),
        ("size_bytes", "lte", 5),
        ("hidden", "eq", False),
        ("created_at_us", "outside", (1003, 1006)),
        ("updated_at_us", "gt", 1992),
        ("created_at_us", "neq", 1005),
    ]
)
# Those that have an index, and others.
SORT_KEYS = [*sorted(SORTED_BY), "owner", "visibility", "property:os", "property:arch"]
QUERIES = st.builds(
    Query,
    viewer=st.sampled_from([Viewer("a"), Viewer("b"), Viewer(None), Viewer("a", is_admin=True)]),
    conditions=st.lists(CONDITIONS, max_size=2).map(tuple),
    one_of=st.sampled_from([{}, {"name": ("x", "ä")}, {"disk_format": ("raw", "qcow2")}]),
    properties=st.sampled_from([{}, {"os": "linux"}, {"arch": "arm" * 40}, {"arch": "arm"}]),
    tags=st.sampled_from(TAGS),
    visibility=st.sampled_from([None, None, "all", *Visibility]),
    deleted=st.sampled_from([None, None, True, False]),
    sort=st.lists(st.tuples(st.sampled_from(SORT_KEYS), st.booleans()), min_size=1, max_size=2).map(tuple),
    limit=st.integers(1, 9),
)


def model(query: Query, images: list[ImageRecord], members: dict[str, MemberStatus]) -> list[str]:
    """What a list must be: filtered and sorted by hand."""
    found = [image for image in images if _matches(query, image, members.get(image.id))]
    down = query.sort[-1][1]
    names = [name for name, _ in query.sort]
    ties = [(name, down) for name in ("created_at_us", "id") if name not in names]
    for name, goes_down in reversed([*query.sort, *ties]):
        found.sort(key=lambda image, name=name: _key(image, name), reverse=goes_down)  # type: ignore[misc]
    return [image.id for image in found]


def _key(image: ImageRecord, name: str) -> Any:
    if name.startswith("property:"):
        return (image.properties.get(name.removeprefix("property:")) or "").encode()
    value = getattr(image, name)
    if name in ("size_bytes", "created_at_us", "updated_at_us"):
        return value or 0
    return (value or "").encode()


def _matches(query: Query, image: ImageRecord, member: MemberStatus | None) -> bool:
    viewer = query.viewer
    owned = viewer.tenant is not None and image.owner == viewer.tenant
    is_member = viewer.tenant == "b" and member is MemberStatus.ACCEPTED and image.visibility == Visibility.SHARED
    seen = viewer.is_admin or owned or image.visibility in (Visibility.PUBLIC, Visibility.COMMUNITY) or is_member
    if query.visibility is None:
        seen = seen and (image.visibility != Visibility.COMMUNITY or owned)
    elif query.visibility != "all":
        seen = seen and image.visibility == query.visibility
    gone = image.deleted_at_us is not None
    return (
        seen
        and (query.deleted is False or gone == bool(query.deleted))
        and all(_compare(getattr(image, name), comparison, value) for name, comparison, value in query.conditions)
        and all(getattr(image, name) in values for name, values in query.one_of.items())
        and all(image.properties.get(name) == value for name, value in query.properties.items())
        and all(tag in image.tags for tag in query.tags)
    )


def _compare(value: Any, comparison: str, wanted: Any) -> bool:
    if value is None:
        return False
    if comparison == "outside":
        return bool(value < wanted[0] or value >= wanted[1])
    if comparison in ("eq", "neq"):
        return bool((value == wanted) == (comparison == "eq"))
    return bool(
        {"gt": value > wanted, "gte": value >= wanted, "lt": value < wanted, "lte": value <= wanted}[comparison]
    )


@settings(deadline=None, max_examples=60)
@given(query=QUERIES)
def test_lists_are_what_a_model_says(filled: Filled, query: Query) -> None:
    """Page by page from the marker of the last, a list is exactly the model's: nothing twice, nothing left out."""
    registry, images, members = filled
    expected = model(query, images, members)
    found: list[str] = []
    marker: ImageRecord | None = None
    for _ in range(IMAGES):
        page = registry.find(replace(query, marker=marker))
        found += [image.id for image in page]
        if len(page) < query.limit:
            break
        marker = page[-1]
    assert found == expected


@pytest.mark.parametrize("key", ["owner", "visibility", "property:os", "property:arch"])
@pytest.mark.parametrize("down", [False, True])
def test_lists_sorted_without_an_index(filled: Filled, key: str, down: bool) -> None:
    """All images, page by page, in the order of a column or a property that nothing else walks along."""
    registry, images, members = filled
    query = Query(Viewer("a", is_admin=True), visibility="all", deleted=False, sort=((key, down),), limit=7)
    page = registry.find(query)
    found = [image.id for image in page]
    while page and len(found) <= IMAGES:
        page = registry.find(replace(query, marker=page[-1]))
        found += [image.id for image in page]
    assert found == model(query, images, members)
