"""What a store refuses, and what is lost on the way to it, as the views know it."""

from __future__ import annotations

import errno

from mover.library.seam import (
    CarrierError,
    Duplicate,
    InUse,
    NotAllowed,
    NotThere,
    StorageFull,
    StorageWriteDenied,
    StoreAddDisabled,
    StoreGone,
    Unreachable,
    WrongChecksum,
    WrongFormat,
    WrongOffset,
    WrongSize,
)
from workers.lane.lane_states import LaneLost
from workers.lane.protocol import Completion, Status
from workers.lane.store_format import Refused, Why

ERRORS: dict[Why, type[CarrierError]] = {
    Why.FULL: StorageFull,
    Why.DENIED: StorageWriteDenied,
    Why.ADD_DISABLED: StoreAddDisabled,
    Why.DUPLICATE: Duplicate,
    Why.BUSY: Duplicate,
    Why.NOT_THERE: NotThere,
    Why.IN_USE: InUse,
    Why.WRONG_SIZE: WrongSize,
    Why.WRONG_CHECKSUM: WrongChecksum,
    Why.WRONG_FORMAT: WrongFormat,
    Why.NOT_ALLOWED: NotAllowed,
    Why.UNREACHABLE: Unreachable,
}
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
# The worker died, and its successor knows nothing of the upload; another one can begin at once.
AGAIN_S = 1.0


def from_refusal(refused: Refused) -> CarrierError:
    """What the store said."""
    if refused.why is Why.WRONG_OFFSET:
        return WrongOffset(refused.message, refused.offset)
    if refused.why is Why.GONE:
        return StoreGone(refused.message)
    return ERRORS[refused.why](refused.message)


def from_job(completion: Completion) -> CarrierError:
    """What a job of the store's failed with."""
    number = completion.value
    if number in FULL:
        return StorageFull("the store is full: make room in it, raise its quota, or use another")
    if number in DENIED:
        return StorageWriteDenied("the store cannot be written: its administrator must see to permissions")
    if number == errno.ESTALE or completion.status is Status.GONE:
        return StoreGone("the transfer was interrupted: try again", AGAIN_S)
    name = errno.errorcode.get(number, completion.status.name)
    return StoreGone(f"the store does not work ({name}): try again later")


def from_lane(lost: LaneLost) -> StoreGone:
    """There is no worker, or no more."""
    return StoreGone(f"the store cannot be reached: {lost.reason}", lost.retry_after_s)
