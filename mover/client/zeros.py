"""Where in a buffer zeros are, at C speed: memcmp stops at the first byte that is not one."""

from __future__ import annotations

from collections.abc import Iterator

# The least run that is worth a hole, or a request of its own.
GRAIN_BYTES = 64 * 1024
# A bytearray: compared with a view by memcmp; bytes would go through memoryview's comparison, a byte at a time.
_ZEROS = bytearray(GRAIN_BYTES)
# For who must write them.
SLAB = memoryview(bytes(1 << 20))


def is_zero(view: memoryview) -> bool:
    """Whether every byte is zero."""
    for at in range(0, len(view), GRAIN_BYTES):
        part = view[at : at + GRAIN_BYTES]
        # The bytearray first: its comparison is the memcmp.
        if (_ZEROS if len(part) == GRAIN_BYTES else _ZEROS[: len(part)]) != part:
            return False
    return True


def runs(view: memoryview, offset: int, grain: int = GRAIN_BYTES) -> Iterator[tuple[int, int, bool]]:
    """The view cut into (start, length, whether it is zeros), at places of the image that are multiples of `grain`.

    `offset` is where in the image the view begins.
    """
    start = at = 0
    last: bool | None = None
    while at < len(view):
        end = min(at + grain - (offset + at) % grain, len(view))
        zero = is_zero(view[at:end])
        if last is not None and zero != last:
            yield start, at - start, last
            start = at
        last = zero
        at = end
    if last is not None:
        yield start, at - start, last
