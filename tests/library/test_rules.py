"""The rules of both views without a service: whatever a client sends is a value, or an error that says why."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.library import tokens
from mover.library.callers import Caller
from mover.library.errors import ApiError
from mover.library.queries import Query
from mover.library.records import ImageRecord, Visibility
from mover.library.states import MOVES, IllegalMove, State, check_moves
from mover.library.times import from_iso, to_v1, to_v2
from mover.library.v1 import filters as v1_filters
from mover.library.v1 import headers as v1_headers
from mover.library.v1 import words as v1_words
from mover.library.v2 import filters, patch, words

ME = Caller("me", "tenant")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=5,
)  # fmt: skip
NAMES = st.sampled_from(["name", "tags", "min_ram", "os", "a/b", "status", "visibility", "~"]) | st.text(max_size=5)
STEPS = st.fixed_dictionaries(
    {}, optional={
        "op": st.sampled_from(["add", "replace", "remove", "move"]) | JSON,
        "path": NAMES.map(lambda name: "/" + name.replace("~", "~0").replace("/", "~1")) | JSON,
        "value": JSON,
    },
)  # fmt: skip


def record(**facts: Any) -> ImageRecord:
    """An image of mine."""
    return ImageRecord(
        id="0" * 8, state=State.QUEUED, visibility=Visibility.SHARED, created_at_us=1, updated_at_us=1, revision=1,
        owner="tenant", **facts,
    )  # fmt: skip


@given(body=st.lists(STEPS | JSON, max_size=4) | JSON, media=st.sampled_from(patch.MEDIA))
def test_any_patch_is_a_change_or_an_error(body: Any, media: str) -> None:
    """400, 403, 409 or 413, and no other end; what it makes of an image is of the registry's types."""
    try:
        change = patch.apply(record(properties={"os": "x"}), patch.parse(body, media), 128, 128)
    except ApiError as error:
        assert error.status in (400, 403, 409, 413)
        return
    assert all(isinstance(value, str) for value in (change.properties or {}).values())
    json.dumps(change.facts)


@given(values=st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=5))
def test_patches_do_what_they_say(values: dict[str, str]) -> None:
    """Properties that are added one by one are there, those that are removed are gone."""
    wanted = {
        name: value
        for name, value in values.items()
        if name and name not in words.ATTRIBUTES and "\0" not in name + value
    }
    paths = {name: "/" + name.replace("~", "~0").replace("/", "~1") for name in wanted}
    add = [{"op": "add", "path": paths[name], "value": value} for name, value in wanted.items()]
    change = patch.apply(record(), patch.parse(add, patch.MEDIA_21), 128, 128)
    assert (change.properties or {}) == wanted
    remove = [{"remove": path} for path in paths.values()]
    again = patch.apply(record(properties=wanted), patch.parse(remove, patch.MEDIA_20), 128, 128)
    assert again.properties == ({} if wanted else None)


@given(found=st.lists(st.text(min_size=1), min_size=1))
def test_quoted_lists_come_back(found: list[str]) -> None:
    """Whatever stands in quotes, commas and quotes too."""
    quoted = ",".join('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in found)
    assert filters.split_list(quoted) == found


@given(text=st.text())
def test_any_list_is_values_or_an_error(text: str) -> None:
    """No text is read for ever, or crashes."""
    try:
        assert all(isinstance(value, str) for value in filters.split_list(text))
    except ApiError as error:
        assert error.status == 400


ARGUMENTS = st.dictionaries(
    st.sampled_from([
        "limit", "sort", "sort_key", "sort_dir", "name", "status", "size_min", "created_at", "protected", "visibility",
        "tag", "os", "is_public", "changes-since", "deleted", "property-x", "member_status", "min_ram", "is_public",
    ]) | st.text(max_size=5),
    st.lists(st.sampled_from(["", "1", "x", "true", "name:asc", "in:a", "gt:2026-01-01", "None"]) | st.text(),
             min_size=1, max_size=2),
)  # fmt: skip


@given(arguments=ARGUMENTS, admin=st.booleans())
def test_any_arguments_are_a_query_or_an_error(arguments: dict[str, list[str]], admin: bool) -> None:
    """In both views; nobody but an admin looks as one."""
    caller = Caller("me", "tenant", frozenset({"admin"}) if admin else frozenset())
    for parse in (filters.parse, v1_filters.parse):
        try:
            query = parse(arguments, caller, 25, None)
        except ApiError as error:
            assert error.status == 400
            continue
        assert isinstance(query, Query)
        assert query.viewer.is_admin <= admin
        assert 0 <= query.limit <= 1000
        assert admin or query.deleted is not True


@given(name=st.text(max_size=8), value=st.text(max_size=8))
def test_any_header_is_metadata_or_an_error(name: str, value: str) -> None:
    """And what comes out of it can be sent back as headers of one line each."""
    try:
        meta = v1_headers.parse([(f"x-image-meta-{name}", value), (f"x-image-meta-property-{name}", value)])
    except ApiError as error:
        assert error.status == 400
        return
    for sent_name, sent in v1_words.headers(record(properties=meta.properties)):
        assert not set(sent_name + sent) & set("\r\n\0")
        assert not set(sent_name) & set(": \t")


@given(us=st.integers(0, 4_000_000_000_000_000))
def test_times_come_back(us: int) -> None:
    """To the microsecond in v1, to the second in v2."""
    assert from_iso(to_v1(us)) == us
    assert from_iso(to_v2(us)) == us // 1_000_000 * 1_000_000


@pytest.mark.parametrize(
    "text", ["2026-11-20T22:10:32", "2026-11-20T22:10:32Z", "2026-11-21T00:10:32+02:00", "2026-11-21T00:10:32 02:00"]
)
def test_times_as_clients_write_them(text: str) -> None:
    """With a zone, without one, and with a plus sign that somebody did not encode."""
    assert to_v2(from_iso(text)) == "2026-11-20T22:10:32Z"


@pytest.mark.parametrize("old", State)
@pytest.mark.parametrize("new", State)
def test_the_moves_are_those_of_the_table(old: State, new: State) -> None:
    """All others are refused, by name."""
    if new in MOVES[old]:
        check_moves(frozenset({old}), new)
    else:
        with pytest.raises(IllegalMove):
            check_moves(frozenset({old}), new)


def test_a_token_is_kept_nowhere() -> None:
    """Its entry has its hash, and no two are alike."""
    token, entry = tokens.new("u", "t", [])
    assert token not in repr(entry)
    assert entry.sha256 == tokens.digest(token)
    assert tokens.new("u", "t", [])[0] != token
