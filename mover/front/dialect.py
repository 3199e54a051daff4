"""Where imageio's contract and CloudStack's disagree: one table, a field for each row of it.

A ticket names the dialect of the side that installed it; everything that is not in this table is common.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from config.export import Export
from mover.serve.messages import DialectName


class Dialect(msgspec.Struct, frozen=True):
    """How one side's clients are answered."""

    # PUT without `flush=` flushes before its answer.
    flushes_by_default: bool
    # The status of a Range that is malformed, or several; a range that the image does not have is 416 in both.
    bad_range_status: int
    # The last byte of Content-Range must agree with Content-Length; only the first one counts otherwise.
    content_range_end_counts: bool
    # The answer to an id that is unknown, expired or canceled, and whether the connection ends with it.
    unknown_status: int
    unknown_error: str
    unknown_closes: bool
    # `context=dirty` where there is no bitmap: all is dirty, and a warning logged; 404 otherwise.
    all_dirty_without_bitmap: bool
    # Extents of the allocation have the key `hole`; neighbours that differ in nothing else are one otherwise.
    extents_have_hole: bool
    # Zero beyond the end is cut off there, and an offset at or after the end 400; all of it is 416 otherwise.
    zero_is_clamped: bool
    # `file` is a whole file, read in parts and replaced as a whole; a raw file is a block device otherwise.
    files_are_whole: bool
    # Zeroing may punch holes whatever the ticket says; only if it is `sparse` otherwise.
    always_sparse: bool
    # Numbers in PATCH's JSON may be strings.
    numbers_may_be_text: bool
    # `?close=y` ends the connection after the answer.
    close_is_heard: bool


IMAGEIO = Dialect(
    flushes_by_default=True,
    bad_range_status=416,
    content_range_end_counts=True,
    unknown_status=403,
    unknown_error="no such ticket, or it has expired or was canceled",
    unknown_closes=True,
    all_dirty_without_bitmap=False,
    extents_have_hole=True,
    zero_is_clamped=False,
    files_are_whole=False,
    always_sparse=False,
    numbers_may_be_text=False,
    close_is_heard=True,
)

CLOUDSTACK = Dialect(
    flushes_by_default=False,
    bad_range_status=400,
    content_range_end_counts=False,
    unknown_status=404,
    unknown_error="unknown image_id",
    unknown_closes=False,
    all_dirty_without_bitmap=True,
    extents_have_hole=False,
    zero_is_clamped=True,
    files_are_whole=True,
    always_sparse=True,
    numbers_may_be_text=True,
    close_is_heard=False,
)

DIALECTS: dict[DialectName, Dialect] = {"imageio": IMAGEIO, "cloudstack": CLOUDSTACK}


def exported(export: Export, dialect: DialectName) -> Export:
    """An export as a dialect means it: a file is a whole file, or the disk that it holds."""
    if export.transport != "file":
        return export
    return replace(export, whole_file=DIALECTS[dialect].files_are_whole)
