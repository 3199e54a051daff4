"""`Range` and `Content-Range` as contracts/images.md has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.front.ranges import BadRange, RangeRefused, Span, Unsatisfiable, parse_content_range, parse_range

sizes = st.integers(0, 2**63 - 1)
numbers = st.integers(0, 2**64)


@pytest.mark.parametrize(
    ("header", "offset", "length"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=10-19", 10, 10),
        ("bytes=10-", 10, 90),
        ("bytes=99-", 99, 1),
        ("bytes=-1", 99, 1),
        ("bytes=-100", 0, 100),
        ("bytes=90-1000", 90, 10),
        ("bytes=-1000", 0, 100),
        ("bytes=0010-0019", 10, 10),
        ("BYTES=1-2", 1, 2),
        (" \tbytes=1-2 ", 1, 2),
        ("bytes=,, ,1-2 , ,", 1, 2),
        ("bytes=0-" + "9" * 5000, 0, 100),
        ("bytes=-" + "9" * 5000, 0, 100),
        ("bytes=" + "0" * 5000 + "7-", 7, 93),
    ],
)
def test_one_range_is_found_and_clamped(header: str, offset: int, length: int) -> None:
    """Of an image of 100 bytes."""
    assert parse_range(header, 100) == Span(offset, length)


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=2-1", "bytes=" + "9" * 5000 + "-"])
def test_what_the_image_does_not_have_is_unsatisfiable(header: str) -> None:
    """A start at or after the end, or after its own end: 416 in both dialects."""
    with pytest.raises(Unsatisfiable) as caught:
        parse_range(header, 100)
    assert caught.value.limit == 100
    assert header.startswith(caught.value.value)


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-1"])
def test_an_empty_image_has_no_range(header: str) -> None:
    """Not even the suffix form, which is satisfiable for any other size."""
    with pytest.raises(Unsatisfiable):
        parse_range(header, 0)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=-0",
        "bytes=-000",
        "bytes=1",
        "bytes=a-b",
        "bytes=1-2,4-5",
        "bytes=1-2, 4-5",
        "bytes=,",
        "bytes=1-2-3",
        "bytes=+1-2",
        "bytes=1-+2",
        "bytes=--1",
        "bytes=0x1-2",
        "bytes=1_0-20",
        "bytes= 1-2",
        "bytes=1 -2",
        "bytes=1- 2",
        "bytes =1-2",
        "bytes=1-2\n",
        "bytes=1-2;q",
        "bytes=\u0661-\u0662",
        "bytes=\u00b2-",
        "bytes=1-2\u00a0",
        "items=1-2",
        "items=0-",
        "bits=-0",
    ],
)
@pytest.mark.parametrize("size", [0, 100])
def test_what_is_no_single_range_of_bytes_is_bad(header: str, size: int) -> None:
    """Even where the image is empty: a bad header is bad before it is unsatisfiable."""
    with pytest.raises(BadRange) as caught:
        parse_range(header, size)
    assert caught.value.limit == size


@given(st.text() | st.from_regex(r"bytes=[0-9, \t-]*", fullmatch=True), sizes)
def test_any_header_gives_bytes_of_the_image_or_a_named_error(header: str, size: int) -> None:
    try:
        span = parse_range(header, size)
    except RangeRefused:
        return
    assert 0 <= span.offset < size
    assert 0 < span.length <= size - span.offset


@given(numbers, numbers, sizes)
def test_a_range_names_the_bytes_between_its_ends(first: int, last: int, size: int) -> None:
    if first > last or first >= size:
        with pytest.raises(Unsatisfiable):
            parse_range(f"bytes={first}-{last}", size)
        return
    assert parse_range(f"bytes={first}-{last}", size) == Span(first, min(last + 1, size) - first)


def test_an_error_repeats_only_the_beginning_of_a_header() -> None:
    """A client's header may have thousands of characters; a log line and a JSON body need not."""
    with pytest.raises(BadRange) as caught:
        parse_range("x" * 8000, 100)
    assert len(caught.value.value) == 80
    assert len(str(caught.value)) < 200


def test_a_hostile_list_is_refused_at_once() -> None:
    """Commas and blanks match in one way only; two ways each would take longer than the universe has."""
    with pytest.raises(BadRange):
        parse_range("bytes=" + ", " * 8000 + "x", 100)
    with pytest.raises(BadRange):
        parse_range("bytes=0-1" + " ," * 8000 + "x", 100)


@pytest.mark.parametrize(
    "header",
    ["bytes 10-19/*", "bytes 10-19/100", "bytes 10-19/5000", "bytes 10-*/*", "bytes 10-*/100", " Bytes 10-19/* "],
)
def test_a_body_goes_where_its_first_number_says(header: str) -> None:
    """Ten bytes into an image of 100; a whole size that is not the image's does not matter."""
    assert parse_content_range(header, 10, 100) == Span(10, 10)


@pytest.mark.parametrize(
    "header", ["bytes 10-18/*", "bytes 10-20/*", "bytes 10-9/*", "bytes 10-19/15", "bytes 10-19/19"]
)
def test_a_last_byte_that_contradicts_the_body_is_bad_but_for_cloudstack(header: str) -> None:
    """Both peers use only the first number; only an imageio ticket is held to the others."""
    with pytest.raises(BadRange):
        parse_content_range(header, 10, 100)
    assert parse_content_range(header, 10, 100, end_counts=False) == Span(10, 10)


def test_a_last_byte_before_the_first_is_bad_for_an_empty_body_too() -> None:
    """`10-9` is ten to nine, not a way to write nothing."""
    with pytest.raises(BadRange):
        parse_content_range("bytes 10-9/*", 0, 100)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes */*",
        "bytes */100",
        "bytes 10-19",
        "bytes 10-/*",
        "bytes -19/*",
        "bytes=10-19/*",
        "bytes 10-19/",
        "bytes 10-19/*x",
        "bytes 10-19/*, 30-39/*",
        "bytes +10-19/*",
        "items 10-19/*",
        "bytes \u0661\u0660-19/*",
    ],
)
def test_a_content_range_of_another_form_is_bad(header: str) -> None:
    """In both dialects: guessing would put the body in the wrong place."""
    with pytest.raises(BadRange):
        parse_content_range(header, 10, 100)
    with pytest.raises(BadRange):
        parse_content_range(header, 10, 100, end_counts=False)


@given(st.integers(0, 2**62), st.integers(1, 2**62), sizes)
def test_a_body_fits_the_image_or_is_unsatisfiable(first: int, length: int, size: int) -> None:
    header = f"bytes {first}-{first + length - 1}/*"
    if first + length <= size:
        assert parse_content_range(header, length, size) == Span(first, length)
        return
    with pytest.raises(Unsatisfiable):
        parse_content_range(header, length, size)


def test_numbers_without_end_are_beyond_every_image() -> None:
    """Python refuses to read more than 4300 digits; the client gets 416, not 500."""
    with pytest.raises(Unsatisfiable):
        parse_content_range("bytes " + "9" * 5000 + "-*/*", 1, 100)
