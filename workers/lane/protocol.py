"""What travels on a lane: jobs and completions in cells of fixed size, and the messages that open it.

Cells are `struct`s in shared memory, so a process killed at any instruction leaves no lock behind and no half
message that could be taken for a whole one. Each cell ends with its sequence number in the ring, which the
reader compares with the one it expects.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

import msgspec

VERSION = 2


class Kind(IntEnum):
    """What a job asks for."""

    READ = 1  # image[offset:offset+length] into the slot
    WRITE = 2  # the slot's first `length` bytes to the image; a chunk of zeros becomes ZERO
    ZERO = 3  # write zeroes; no slot, any length
    FLUSH = 4  # make durable what was confirmed before; no slot
    EXTENTS = 5  # extents from `offset`, packed into the slot (workers/lane/extents_format.py)
    LOST = 6  # the ranges that the transfer must send again, packed into the slot (workers/lane/lost_format.py)
    TOLD = 7  # the client was told of them; the offset is the number that came with them
    CHECKSUM = 8  # hash the image as the slot says (workers/lane/checksum_format.py); `value` is the digest's length
    CANCEL = 9  # stop the ZERO or CHECKSUM whose number is the offset: it fails with ECANCELED; no slot
    GO_ON = 14  # the CHECKSUM whose number is the offset may read more than it might, as its slot says; no slot
    # Of whole files only, in sessions. READ and WRITE there name theirs in `context`; one that the worker does not know
    # (any more) is refused with ESTALE. A lane that closes takes its sessions with it, unless they were committed.
    OPEN = 10  # read the file that is there now: `value` is the session, `covered` its size; `length` MOST_FILE_BYTES
    BEGIN = 11  # write a new file of `length` bytes: `value` is the session; nobody sees it before it is committed
    COMMIT = 12  # all `length` bytes were confirmed: it is made durable and takes the old one's place; offset: session
    ROLLBACK = 13  # end a session that reads, or one that shall change nothing; the offset is the session
    # Of stores of library images only. WRITE, ZERO and ROLLBACK there name an upload's session, too; its WRITEs and
    # ZEROs come in the order of the bytes, and end when these are written and hashed.
    STORE = 20  # the question in the slot (workers/lane/store_format.py), answered there


# What one whole file may have at most: off_t's limit. `covered` of a completion is never more than a job's `length`.
MOST_FILE_BYTES = 2**63 - 1


class Flag(IntFlag):
    """How the job is to be done."""

    NONE = 0
    MAY_HOLE = 1  # zeroing may deallocate (a sparse ticket)
    KEEP = 4  # ROLLBACK of an upload: what has come is kept, if the upload may be gone on with
    AGAIN = 2  # submitted to a dead predecessor before, whose command for the same bytes may still land


class Status(IntEnum):
    """How a job ended. `value` of the completion is the errno for FAILED, one of three for GONE, 0 for the rest."""

    OK = 0
    FAILED = 1  # the NBD server answered with an error; nothing else was tried
    GONE = 2  # its deadline passed without a server (ENOTCONN) or a file (ENOENT), or it is another image (ESTALE)
    REFUSED = 3  # the job is not possible on this image: outside it, read-only, no such context
    LOST = 4  # flush: writes that were confirmed are lost with the server that had them; ask LOST


class Job(msgspec.Struct):
    """One chunk-range request, as it stands in a submission cell. Offsets and lengths in bytes.

    `slot` is -1 for jobs without one; `context` is 0 for allocation only, else 1 + the index of a bitmap in
    the image's list, or a whole file's session; `transfer` is the ticket's version, the ledger's name for who wrote.
    """

    number: int
    kind: Kind
    offset: int = 0
    length: int = 0
    slot: int = -1
    transfer: int = 0
    flags: int = 0
    context: int = 0


class Completion(msgspec.Struct):
    """One job's end, as it stands in a completion cell; `covered` is how many bytes of the image it is about."""

    number: int
    status: Status
    covered: int = 0
    value: int = 0


CELL_BYTES = 64
# generation kind flags context number offset length slot transfer sequence
JOB_CELL = struct.Struct("<IBBxxQQQQiIQ")
COMPLETION_CELL = struct.Struct("<IIQQqQ")  # generation status number covered value sequence


class ImageFacts(msgspec.Struct, frozen=True):
    """What a worker found out about its export when it connected. `block_bytes` is the least unit of a write.

    Of a `whole_file` the size was the one it had then (0 if there was none): OPEN tells what it is now. A `store` has
    no bytes of its own: it takes images in, in sessions.

    A source at a URL has a `version`, which another source at the same URL would not have (an ETag or a date; empty if
    its server sends neither). If `sequential`, its server has no ranges: READs come in order from 0 on, of each reader
    by itself, and any other one fails with ESPIPE; if it breaks off, the reader begins at 0 again. If `unsized`, nobody
    knows its size before its end: `size_bytes` is MOST_FILE_BYTES, and a READ that covers less than it asked for has
    met the end. What is unsized is sequential, too.
    """

    size_bytes: int
    read_only: bool
    can_flush: bool = False
    can_zero: bool = False
    has_extents: bool = False
    multi_conn: bool = False
    block_bytes: int = 1
    bitmaps: list[str] = []
    whole_file: bool = False
    store: bool = False
    version: str = ""
    sequential: bool = False
    unsized: bool = False


class LaneOffer(msgspec.Struct, tag=True, frozen=True):
    """Front end to worker: descriptors of arena, rings, doorbell to the worker, doorbell to the front end.

    `resumes` says that jobs of an earlier attachment wait: try long to reach the server before refusing. `lane` is the
    front end's own number for the lane, the same over all its attachments.
    """

    version: int
    generation: int
    slots: int
    slot_bytes: int
    cells: int
    resumes: bool
    lane: int = 0


class LaneOpened(msgspec.Struct, tag=True, frozen=True):
    """Worker to front end: jobs are welcome."""

    version: int
    generation: int
    image: ImageFacts


class LaneFailed(msgspec.Struct, tag=True, frozen=True):
    """Worker to front end: no jobs, and why. The worker keeps trying; opening again may succeed."""

    reason: str
