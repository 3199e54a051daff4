"""The rules of VISOR's view without a service: whatever a client sends is a value, or an error that says why."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.library.callers import Caller
from mover.library.errors import ApiError
from mover.library.queries import Query
from mover.library.visor import filters, meta, signature
from mover.library.visor.rendering import chosen, render
from mover.library.visor.words import KNOWN
from tests.library.visor import META, authorization

TEXT = st.text(max_size=8)
NAMES = st.sampled_from(sorted(KNOWN)) | TEXT


@given(st.dictionaries(NAMES.map(lambda name: META + name.lower()), TEXT | st.just("\udce9")), st.booleans())
def test_metadata(headers: dict[str, str], has_body: bool) -> None:
    """It is read, or refused with 400."""
    try:
        found = meta.parse(headers, has_body)
    except ApiError as error:
        assert error.status == 400
    else:
        assert found.given == bool(headers)
        assert not found.properties.keys() & (KNOWN - {"architecture", "type"})


@given(st.dictionaries(NAMES | st.sampled_from(["sort", "dir"]), st.lists(NAMES, min_size=1, max_size=2)))
def test_lists(arguments: dict[str, list[str]]) -> None:
    """A query, or 400; those that want a form filter by nothing."""
    try:
        listing = filters.parse(arguments, Caller("me", "tenant"))
    except ApiError as error:
        assert error.status == 400
    else:
        assert isinstance(listing.query, Query)
        assert listing.matches(listing.shown)  # type: ignore[arg-type]


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=8) | st.integers() | st.floats()))
def test_xml(image: dict[str, object]) -> None:
    """Whatever an image's attributes are, it is one document with an element for each."""
    root = ElementTree.fromstring(render("xml", {"image": image}))
    assert len(root[0]) == len(image)
    assert not any(list(one) or one.attrib for one in root[0])


@pytest.mark.parametrize("accept", ["", ";", "application/xml;q=0", "application/xml;q=x", ",,", "xml", "q=1;*/*"])
def test_odd_accepts(accept: str) -> None:
    """Are no errors."""
    assert chosen(accept, None) == ("xml" if accept.endswith("q=x") else "json")


# What VISOR's documents sign, by hand: ann, with the secret s3cret, at a time.
KNOWN_HEADERS = {"date": "Mon, 02 Jul 2012 10:00:00 GMT", "x-image-meta-name": "n", "content-type": "text/plain"}
KNOWN_TEXT = b"PUT\n\ntext/plain\nMon, 02 Jul 2012 10:00:00 GMT\nx-image-meta-name:n\n/images/1"


def test_what_is_signed() -> None:
    """Line by line."""
    assert signature.description("PUT", "/images/1", {**KNOWN_HEADERS, "accept": "*/*"}) == KNOWN_TEXT
    assert signature.description("GET", "/", {}) == b"GET\n\n\n/"


HEADERS = st.dictionaries(
    st.sampled_from(["content-md5", "content-type", "date", "host", META + "a", META + "b"]), TEXT
)


@given(HEADERS, st.text(st.characters(codec="latin-1"), min_size=1), st.sampled_from(["GET", "PUT"]))
def test_signatures(headers: dict[str, str], secret: str, method: str) -> None:
    """As the tests' own client makes them, and no others."""
    latin = {name: value.encode("ascii", "ignore").decode() for name, value in headers.items()}
    sent = authorization("ann", secret, method, "/path", latin)
    found = signature.credentials(sent)
    assert found is not None
    described = signature.description(method, "/path", latin)
    assert found[0] == "ann"
    assert signature.is_signed(secret, described, found[1])
    assert not signature.is_signed(secret, described + b"x", found[1])
    assert not signature.is_signed(secret + "x", described, found[1])


@given(TEXT)
def test_authorizations(text: str) -> None:
    """Of two parts, or none."""
    found = signature.credentials(text)
    assert found is None or found[0]
    assert signature.seconds_of(text) is None or isinstance(signature.seconds_of(text), float)
