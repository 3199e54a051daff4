"""The objects of one store, through OpenDAL: what it raises becomes OSErrors in words of this house.

OpenDAL tries again, with pauses that grow, what fails for a moment (500, 503, connections that break, bodies that are
cut short); what is raised here has failed several times. Its own messages have URLs and headers in them, so none of
them is shown: only the S3 error's code.
"""

from __future__ import annotations

import asyncio
import errno
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol, TypeVar

import opendal
from opendal.layers import RetryLayer, TimeoutLayer

from config.store_settings import ObjectStore
from workers.lane.store_format import Why
from workers.store.backing import Refusal
from workers.store.objects.credentials import remedy

T = TypeVar("T")

CONTROL_S, BYTES_S = 15.0, 30.0
# Parts that are sent at the same time share one count.
RETRIES, FIRST_PAUSE_S, LONGEST_PAUSE_S = 8, 0.1, 2.0
CODE = re.compile(r'\bcode: "(\w+)"|\bexception: "(\w+)"')
STATUS = re.compile(r"\bstatus: (\d{3})\b")
# The first word of each message is the kind of failure, also where the binding raises an OSError without a number.
KIND = re.compile(r"\w+")
ERRNOS = {
    "NotFound": errno.ENOENT,
    "PermissionDenied": errno.EACCES,
    "RangeNotSatisfied": errno.ESTALE,
    "ConditionNotMatch": errno.ESTALE,
}
# Answers to HEAD have no code, those of Swift never.
SAID = {"NotFound": "there is nothing of this name", "PermissionDenied": "access denied"}
# S3's, and HDFS's exceptions. A quota of Swift's is 413, which its S3 API calls EntityTooLarge.
FULL_CODES = frozenset(
    {
        *("QuotaExceeded", "InsufficientCapacity", "XMinioStorageFull", "EntityTooLarge"),
        *("DSQuotaExceededException", "NSQuotaExceededException", "QuotaExceededException"),
    }
)
FULL_STATUSES = frozenset({"413", "507"})


class Writer(Protocol):
    """The bytes of one object on their way, in their order."""

    def write(self, data: bytes) -> None:
        """The next bytes. Raises OSError."""

    def close(self) -> None:
        """All bytes have come: see that the object has them. Raises OSError."""

    def stop(self) -> None:
        """Nothing more comes, and what is under way is of no use; it has ended when this returns."""


class Objects(ABC):
    """The objects of a store; every call blocks, and raises OSError. One is there when all of its bytes are."""

    def __init__(self, store: ObjectStore, operator: opendal.Operator) -> None:
        self.store = store
        self.operator = operator

    # -- what each kind has its own way of -------------------------------------------------------------------

    @abstractmethod
    def begin(self, name: str, size: int | None) -> Writer:
        """A writer of a new object."""

    @abstractmethod
    def end(self, name: str) -> None:
        """Remove an object, or what an upload of it has left; it is no error if there is nothing."""

    def remove(self, name: str) -> None:
        """Remove an object that is whole; it is no error if there is none."""
        self.end(name)

    def attempt(self, call: Callable[[], T]) -> T:
        """What the call returns. Raises OSError with a number and a short text."""
        return attempt(call)

    # -- what all do alike -----------------------------------------------------------------------------------

    def size(self, name: str) -> int | None:
        """How many bytes an object has; None if there is none."""
        try:
            return self.attempt(lambda: self.operator.stat(name)).content_length
        except FileNotFoundError:
            return None

    def read_bytes(self, name: str, offset: int, length: int) -> bytes:
        """Exactly so many bytes of an object."""
        data = self.attempt(lambda: self.operator.read(name, offset=offset, size=length))
        if len(data) != length:
            raise OSError(errno.EIO, f"{len(data)} bytes came, {length} were asked for")
        return data

    def read(self, name: str) -> bytes:
        """A small object."""
        return self.attempt(lambda: self.operator.read(name))

    def write(self, name: str, data: bytes) -> None:
        """Put an object at once."""
        self.attempt(lambda: self.operator.write(name, data))

    def delete(self, name: str) -> None:
        """Remove one object; it is no error if there is none."""
        self.attempt(lambda: self.operator.delete(name))

    def names(self, prefix: str) -> list[str]:
        """The objects whose names begin with `prefix`, which ends with "/", and have no other "/"."""
        try:
            paths = self.attempt(lambda: asyncio.run(_listed(self.operator, prefix)))
        except FileNotFoundError:
            return []
        return [path for path in paths if not path.endswith("/")]

    def refusal(self, error: OSError) -> Refusal:
        """What a client is told when a question to the store fails."""
        store = self.store
        if error.errno == errno.EACCES:
            message = f"store {store.id} refuses Mover's credentials ({error.strerror}): {remedy(store)}"
            return Refusal(Why.DENIED, message)
        if error.errno == errno.ENOSPC:
            return Refusal(Why.FULL, f"store {store.id} is full: make room in it, raise its quota, or use another")
        return Refusal(Why.GONE, f"store {store.id} does not work ({error.strerror}): try again later")


async def _listed(operator: opendal.Operator, prefix: str) -> list[str]:
    """Not by the blocking operator's `list`, which keeps the interpreter's lock while it waits for the server."""
    entries = await operator.to_async_operator().list(prefix)
    return [entry.path async for entry in entries]


def layered(operator: opendal.Operator) -> opendal.Operator:
    """With deadlines, and what fails for a moment tried again."""
    retries = RetryLayer(max_times=RETRIES, factor=2.0, jitter=True, max_delay=LONGEST_PAUSE_S, min_delay=FIRST_PAUSE_S)
    return operator.layer(TimeoutLayer(timeout=CONTROL_S, io_timeout=BYTES_S)).layer(retries)


def attempt(call: Callable[[], T]) -> T:
    """What the call returns. Raises OSError with a number and a short text."""
    try:
        return call()
    except OSError as error:
        if error.errno is not None:
            raise
        raise os_error(str(error)) from None
    except OpenDalErrors as error:
        raise os_error(str(error)) from None


def os_error(message: str) -> OSError:
    """The OSError for what OpenDAL says."""
    found, kind, status = CODE.search(message), KIND.match(message), STATUS.search(message)
    name = kind[0] if kind else "Unexpected"
    code = found[1] or found[2] if found else None
    if code in FULL_CODES or (status is not None and status[1] in FULL_STATUSES):
        return OSError(errno.ENOSPC, code or "it has no room")
    if code == "NoSuchBucket":
        return OSError(errno.ENODEV, "there is no such bucket")
    if code is not None:
        text = code
    elif "timeout" in message:
        text = "it does not answer"
    else:
        text = SAID.get(name, f"it answers {status[1]}" if status else "it cannot be reached, or breaks off")
    return OSError(ERRNOS.get(name, errno.EIO), text)


OpenDalErrors = tuple(
    one for one in vars(opendal.exceptions).values() if isinstance(one, type) and issubclass(one, Exception)
)
