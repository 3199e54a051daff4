"""Sizes, and where the data of a sparse image lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mover.bench.data import GIB, MIB, SparseLayout, format_size, parse_size, write_random


@pytest.mark.parametrize(
    ("text", "size"), [("1GiB", GIB), ("16MiB", 16 * MIB), ("2TiB", 2048 * GIB), ("2048KiB", 2 * MIB), ("1048576", MIB)]
)
def test_a_size_is_a_number_with_a_binary_unit_or_none(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "0MiB", "-1MiB", "1GB", "1.5GiB", "GiB", "1 GiB", "1gib", "4096", "1MiBx"])
def test_anything_else_is_no_size_and_the_error_names_it(text: str) -> None:
    with pytest.raises(ValueError, match="positive multiple of 1MiB") as caught:
        parse_size(text)
    assert text in str(caught.value)


@pytest.mark.parametrize(("size", "text"), [(GIB, "1GiB"), (1536 * MIB, "1536MiB"), (3, "3")])
def test_a_size_is_written_in_the_largest_unit_that_divides_it(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize("data_bytes", [MIB, 64 * MIB, GIB])
def test_a_sparse_layout_holds_its_data_in_order_and_inside_the_image(data_bytes: int) -> None:
    layout = SparseLayout(data_bytes)
    edges = [edge for offset, length in layout.data for edge in (offset, offset + length)]
    assert edges == sorted(set(edges))
    assert edges[-1] <= layout.size_bytes == 20 * data_bytes
    assert sum(length for _, length in layout.data) == data_bytes


def test_the_long_hole_lies_between_the_run_of_data_and_the_first_piece() -> None:
    layout = SparseLayout(16 * MIB)
    offset, length = layout.long_hole
    assert offset == layout.run[0] + layout.run[1]
    assert offset + length == layout.data[1][0]


def test_a_read_meets_a_hole_unless_one_run_of_data_holds_all_of_it() -> None:
    layout = SparseLayout(16 * MIB)
    for offset, length in layout.data:
        assert not layout.touches_hole(offset, length)
        assert layout.touches_hole(offset, length + 1)
        assert layout.touches_hole(offset + length - 1, 2)
    for offset, length in layout.data[1:]:
        assert layout.touches_hole(offset - 1, length)


def test_the_sparse_file_has_data_only_where_the_layout_says(tmp_path: Path) -> None:
    layout, file = SparseLayout(MIB), tmp_path / "sparse"
    layout.write(file)
    assert file.stat().st_size == layout.size_bytes
    content = file.read_bytes()
    for offset, length in layout.data:
        assert any(content[offset : offset + length])
    offset, length = layout.long_hole
    assert not any(content[offset : offset + length])


def test_random_data_goes_exactly_where_it_was_asked(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_bytes(b"before--------")
    os.truncate(file, 14)
    write_random(file, 6, 4)
    content = file.read_bytes()
    assert content[:6] == b"before"
    assert content[10:] == b"----"
    assert len(content) == 14
