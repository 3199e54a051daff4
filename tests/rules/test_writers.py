"""The page of those who have written: each once, on the disk before it is there, and never fewer than there were."""

from __future__ import annotations

import mmap

from workers.image.writers import ANY, FILE_BYTES, PAGE_AT, PAGE_BYTES, Writers, clear, noted


def test_each_transfer_is_noted_once() -> None:
    """The next worker finds them; a page that was cleared has none."""
    buffer = memoryview(mmap.mmap(-1, FILE_BYTES))
    writers = Writers(buffer)
    for transfer in (7, 1, 2**32 - 2):
        assert transfer not in writers
        writers.note(transfer)
        assert transfer in writers
    assert noted(buffer[PAGE_AT:]) == [7, 1, 2**32 - 2]
    assert 7 in Writers(buffer)
    assert 8 not in Writers(buffer)
    clear(buffer)
    assert noted(buffer[PAGE_AT:]) == []
    assert 7 not in Writers(buffer)


def test_one_more_than_there_is_room_for_is_any() -> None:
    """Then everybody counts as a writer."""
    buffer = memoryview(mmap.mmap(-1, FILE_BYTES))
    writers = Writers(buffer)
    for transfer in range(1, PAGE_BYTES // 4 + 2):
        writers.note(transfer)
    assert ANY in noted(buffer[PAGE_AT:])
    assert 10**6 in writers
    assert 10**6 in Writers(buffer)


def test_a_page_that_was_cut_short_is_read_as_far_as_it_goes() -> None:
    """A file may end anywhere."""
    assert noted(b"\x05\0\0\0\x06\0") == [5]
    assert noted(b"") == []
