"""Merging what an NBD server says about a range in two meta contexts, and packing it into a slot.

    asked        |-----------------------|
    allocation   |--data--|-----hole----------|         the last extent may run beyond what was asked,
    bitmap       |-----dirty-----|--clean-|             and a context may stop short of it, or of the other
    merged       |---D----|--HD--|---H----|
    clipped      |---D----|--HD--|---H---|

D is dirty, H a hole; what no context has said is asked again, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from workers.lane.extents_format import DIRTY, HOLE, RECORD, ZERO, Extent, ExtentsBroken

# qemu:dirty-bitmap's only bit.
BITMAP_DIRTY = 1


def merge_contexts(
    allocation: Sequence[Extent], bitmap: Sequence[Extent] | None, depth: Sequence[Extent] | None = None
) -> Iterator[Extent]:
    """One list of extents (length in bytes, flags) from a server's reply, equal neighbours joined.

    It ends where the first context ends: ask again from there. The flags of `allocation` are base:allocation's,
    those of `bitmap` (None: not asked) a dirty bitmap's, those of `depth` (None: the server has none) the depth in a
    chain of images: at depth 0 no image of the chain has the range. Only that is a hole then: a cluster that was zeroed
    hides what a backing file has, and takes no space either.
    Raises ExtentsBroken where a context says nothing, or has an extent without length: the rest would be a guess.
    """
    allocated = ((length, flags & (HOLE | ZERO)) for length, flags in _checked(allocation, "allocation"))
    if bitmap is not None:
        return _joined(_crossed(allocated, _checked(bitmap, "bitmap"), _dirty))
    if depth is not None:
        zero = ((length, flags & ZERO) for length, flags in allocated)
        return _joined(_crossed(zero, _checked(depth, "depth"), _in_no_image))
    return _joined(allocated)


def clip(extents: Iterable[Extent], skip: int, most: int) -> Iterator[Extent]:
    """The extents of `most` bytes (at least 1) after the first `skip`, as far as there are any.

    For a query that began before what was asked, being rounded to blocks, or an answer that runs beyond it.
    """
    for length, flags in extents:
        left = min(length - skip, most)
        skip = max(skip - length, 0)
        if left > 0:
            yield left, flags
            most -= left
        if not most:
            return


class ExtentBuilder:
    """Packs extents (length in bytes, flags) into a view, neighbours with equal flags as one.

    `full` is True once an extent found no room; `filled` is how many bytes of the view `finish` has written.
    """

    def __init__(self, view: memoryview) -> None:
        """`view` has room for one record at least."""
        self._view = view
        # The last record, still growing; its place at `filled` is reserved.
        self._length = 0
        self._flags = 0
        self._covered = 0
        self.filled = 0
        self.full = False

    def add(self, length: int, flags: int) -> int:
        """Append one extent; how much of it was taken: all or nothing."""
        if flags != self._flags and self._length:
            if self.filled + 2 * RECORD.size > self._view.nbytes:
                self.full = True
                return 0
            self._write()
        self._flags = flags
        self._length += length
        return length

    def finish(self) -> int:
        """Write the last record; bytes of the image that all records together describe."""
        if self._length:
            self._write()
        return self._covered

    def _write(self) -> None:
        RECORD.pack_into(self._view, self.filled, self._length, self._flags)
        self.filled += RECORD.size
        self._covered += self._length
        self._length = 0


def _checked(extents: Sequence[Extent], context: str) -> Iterator[Extent]:
    if not extents:
        raise ExtentsBroken(f"gap: extents of {context}", 0)
    return _with_length(extents, context)


def _with_length(extents: Sequence[Extent], context: str) -> Iterator[Extent]:
    for extent in extents:
        if extent[0] <= 0:
            raise ExtentsBroken(f"gap: length of an extent of {context}", extent[0])
        yield extent


def _dirty(bits: int) -> int:
    return DIRTY if bits & BITMAP_DIRTY else 0


def _in_no_image(depth: int) -> int:
    return 0 if depth else HOLE


def _crossed(allocation: Iterator[Extent], other: Iterator[Extent], flag_of: Callable[[int], int]) -> Iterator[Extent]:
    left = flag = 0
    for length, flags in allocation:
        rest = length
        while rest > left:
            if left:
                yield left, flags | flag
            rest -= left
            left, bits = next(other, (0, 0))
            if not left:
                return
            flag = flag_of(bits)
        yield rest, flags | flag
        left -= rest


def _joined(extents: Iterator[Extent]) -> Iterator[Extent]:
    total, last = next(extents)
    for length, flags in extents:
        if flags == last:
            total += length
        else:
            yield total, last
            total, last = length, flags
    yield total, last
