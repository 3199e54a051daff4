"""The demo's disk: which files go into it, and how images are compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from mover.bench import disk
from mover.bench.errors import ClientError, DifferenceError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with twenty files of 1000 bytes, one of 5000, and a link."""
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    for number in range(20):
        (source / "sub" / str(number)).write_bytes(bytes([number]) * 1000)
    (source / "large").write_bytes(bytes(5000))
    (source / "link").symlink_to("sub/0")
    return source


def copies(target: Path) -> list[Path]:
    return [file for file in target.rglob("*") if file.is_file()]


def test_files_are_copied_until_there_are_enough_of_them_and_none_that_is_most_of_all(
    source: Path, tmp_path: Path
) -> None:
    assert disk.copy_files([source], tmp_path / "tree", 8000) == 8000
    assert len(copies(tmp_path / "tree")) == 8


def test_a_copy_keeps_its_place_and_its_bytes(source: Path, tmp_path: Path) -> None:
    disk.copy_files([source], tmp_path / "tree", 10**6)
    place = tmp_path / "tree" / (source / "sub" / "3").relative_to("/")
    assert place.read_bytes() == bytes([3]) * 1000


def test_where_there_are_too_few_files_all_of_them_are_taken_but_no_links(source: Path, tmp_path: Path) -> None:
    assert disk.copy_files([source, tmp_path / "missing"], tmp_path / "tree", 10**6) == 25_000
    assert len(copies(tmp_path / "tree")) == 21


def test_a_range_of_zeros_is_written_and_nothing_beside_it(tmp_path: Path) -> None:
    raw = tmp_path / "disk.raw"
    raw.write_bytes(b"x" * 3_000_000)
    disk.zero_range(raw, 511, 2_000_001)
    assert raw.read_bytes() == b"x" * 511 + bytes(2_000_001) + b"x" * (3_000_000 - 2_000_512)


@pytest.mark.nbd
def test_a_raw_and_a_qcow2_image_with_the_same_bytes_are_the_same(tmp_path: Path) -> None:
    raw, qcow2 = tmp_path / "disk.raw", tmp_path / "disk.qcow2"
    raw.write_bytes(bytes(1 << 20))
    disk.make_empty(qcow2, 1 << 20)
    disk.compare(raw, qcow2)


@pytest.mark.nbd
def test_one_different_byte_is_an_error_that_names_both_images(tmp_path: Path) -> None:
    raw, qcow2 = tmp_path / "disk.raw", tmp_path / "disk.qcow2"
    raw.write_bytes(bytes((1 << 20) - 1) + b"x")
    disk.make_empty(qcow2, 1 << 20)
    with pytest.raises(DifferenceError, match=r"disk\.raw and disk\.qcow2 differ"):
        disk.compare(raw, qcow2)


@pytest.mark.nbd
def test_an_image_that_cannot_be_read_is_not_taken_for_a_difference(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="No such file"):
        disk.compare(tmp_path / "none.raw", tmp_path / "none.qcow2")
