"""Which jobs change, lock or need what, and which of them an export can have. Rules, no I/O."""

from __future__ import annotations

import errno

from workers.image import plan
from workers.image.plan import Limits, Operation, Plan, SessionCommand
from workers.lane.protocol import Flag, Job, Kind

WRITING = frozenset({Kind.WRITE, Kind.ZERO})
LOCKING = frozenset({Kind.READ, Kind.WRITE, Kind.ZERO})
# What a whole file can have, and what is asked of whole files only.
IN_SESSIONS = {
    Kind.READ: Operation.READ,
    Kind.WRITE: Operation.WRITE,
    Kind.OPEN: Operation.OPEN,
    Kind.BEGIN: Operation.BEGIN,
    Kind.COMMIT: Operation.COMMIT,
    Kind.ROLLBACK: Operation.ROLLBACK,
}
SESSIONS_ONLY = frozenset(IN_SESSIONS) - LOCKING
# What a store can have.
OF_STORES = {
    Kind.STORE: Operation.ASK,
    Kind.WRITE: Operation.WRITE,
    Kind.ZERO: Operation.ZERO,
    Kind.ROLLBACK: Operation.ROLLBACK,
}
ANYWHERE = frozenset({Kind.FLUSH, Kind.LOST, Kind.TOLD, Kind.CANCEL, Kind.GO_ON})
# What changes bytes that clients see.
CHANGING = WRITING | {Kind.COMMIT}
WRITING_ANY = WRITING | {Kind.BEGIN}


def in_session(lane: object, job: Job, slot: memoryview | None) -> Plan:
    """The plan of a job on a whole file, or on a store."""
    session = job.context if job.kind in LOCKING else job.offset
    offset = job.offset if job.kind in LOCKING else 0
    # A question's length is its own business.
    buffer = None if slot is None else slot if job.kind is Kind.STORE else slot[: job.length]
    operation = OF_STORES[job.kind] if job.kind in OF_STORES else IN_SESSIONS[job.kind]
    keep = bool(job.flags & Flag.KEEP)
    return plan.in_session(SessionCommand(operation, lane, session, offset, job.length, buffer, keep))


def refusal(job: Job, limits: Limits) -> int:
    """The errno for a job that this image cannot have; 0 for one that it can."""
    facts = limits.facts
    if job.kind in WRITING_ANY and facts.read_only:
        return errno.EROFS
    if facts.store:
        return 0 if job.kind in OF_STORES or job.kind in ANYWHERE - {Kind.FLUSH} else errno.EOPNOTSUPP
    if facts.whole_file:
        return 0 if job.kind in IN_SESSIONS or job.kind in ANYWHERE else errno.EOPNOTSUPP
    if job.kind in LOCKING or job.kind is Kind.EXTENTS:
        if job.length == 0 or job.offset + job.length > facts.size_bytes:
            return errno.EINVAL
    if job.kind is Kind.FLUSH and not facts.can_flush:
        return errno.EOPNOTSUPP
    if job.context > len(facts.bitmaps):
        return errno.ENOENT
    if job.kind in SESSIONS_ONLY or job.kind is Kind.STORE:
        return errno.EOPNOTSUPP
    return 0
