"""What is written of a buffer with zeros in it: all that is data, and of whole chunks of zeros nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.nbd_handle import zeros_in
from workers.store.files.thin import BLOCK_BYTES, data_runs

CHUNK = 4 * BLOCK_BYTES


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, BLOCK_BYTES))
def test_data_is_written_and_zeros_are_not(blocks: list[bool], last_bytes: int) -> None:
    """Blocks of data or zeros, the last one short; every written run begins and ends with data."""
    data = bytearray(b"".join((b"\0" * 4095 + b"x") if block else bytes(BLOCK_BYTES) for block in blocks))
    del data[len(data) - BLOCK_BYTES + last_bytes :]
    runs = list(data_runs(zeros_in(memoryview(data)), len(data), CHUNK))
    written = bytearray(len(data))
    for start, end in runs:
        written[start:end] = data[start:end]
        assert any(data[start : start + BLOCK_BYTES])
        assert any(data[(end - 1) // BLOCK_BYTES * BLOCK_BYTES : end])
        for at in range(-(-start // CHUNK) * CHUNK, end - CHUNK + 1, CHUNK):
            assert any(data[at : at + CHUNK])
    assert written == data
    assert runs == sorted(runs)
