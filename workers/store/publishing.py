"""The last steps of an upload, in a thread: what was announced is compared with what came, and the image is seen."""

from __future__ import annotations

import errno

from workers.lane.store_format import Publish, Published, Refused, Why
from workers.store.backing import Part, Refusal
from workers.store.inspection.claims import Declared, inspect

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def publish(part: Part, asked: Publish, size: int, md5: str | None, hash_value: str | None) -> Published:
    """Check, inspect and publish. Raises Refusal and OSError; the part is then as it was."""
    if asked.md5 is not None and asked.md5.lower() != md5:
        raise Refusal(Why.WRONG_CHECKSUM, f"the image's MD5 is {md5}, {asked.md5} was announced")
    declared = Declared(asked.disk_format, asked.container_format, asked.backing_files)
    virtual_size = inspect(part, size, declared)
    location = part.publish(size)
    return Published(location.uri, location.metadata, size, md5, hash_value, virtual_size, location.volume)


def refused(outcome: object) -> Refused:
    """The answer that a step's failure makes."""
    match outcome:
        case Refusal():
            return Refused(outcome.why, outcome.message, outcome.offset)
        case OSError(errno=number) if number in FULL:
            return Refused(Why.FULL, "the store is full")
        case OSError(errno=number) if number in DENIED:
            return Refused(Why.DENIED, "the store cannot be written")
        case OSError():
            return Refused(Why.GONE, f"the store does not work: {outcome.strerror}")
        case _:
            return Refused(Why.GONE, "nobody waits for it")
