"""The objects of one bucket, through OpenDAL: what it raises becomes OSErrors in words of this house.

OpenDAL tries again, with pauses that grow, what fails for a moment (500, 503, connections that break, bodies that are
cut short); what is raised here has failed several times. Its own messages have URLs and headers in them, so none of
them is shown: only the S3 error's code.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from typing import TypeVar

import opendal
from opendal.file import File
from opendal.layers import RetryLayer, TimeoutLayer

from config.settings import S3Store
from workers.lane.store_format import Why
from workers.store.backing import Refusal
from workers.store.s3_credentials import read_credentials

T = TypeVar("T")

CONTROL_S, BYTES_S = 15.0, 30.0
# Parts that are sent at the same time share one count.
RETRIES, FIRST_PAUSE_S, LONGEST_PAUSE_S = 8, 0.1, 2.0
CODE = re.compile(r'\bcode: "(\w+)"')
# The first word of each message is the kind of failure, also where the binding raises an OSError without a number.
KIND = re.compile(r"\w+")
ERRNOS = {
    "NotFound": errno.ENOENT,
    "PermissionDenied": errno.EACCES,
    "RangeNotSatisfied": errno.ESTALE,
    "ConditionNotMatch": errno.ESTALE,
}
# Answers to HEAD have no code.
SAID = {"NotFound": "there is nothing of this name", "PermissionDenied": "access denied"}
FULL_CODES = frozenset({"QuotaExceeded", "InsufficientCapacity", "XMinioStorageFull"})


class Objects:
    """The bucket of a store; every call blocks, and raises OSError."""

    def __init__(self, store: S3Store) -> None:
        self.store = store
        self.credentials = read_credentials(store)
        operator = opendal.Operator(
            "s3",
            bucket=store.bucket,
            endpoint=store.endpoint,
            region=store.region,
            access_key_id=self.credentials.key,
            secret_access_key=self.credentials.secret,
            disable_config_load="true",
            disable_ec2_metadata="true",
        )
        retries = RetryLayer(
            max_times=RETRIES, factor=2.0, jitter=True, max_delay=LONGEST_PAUSE_S, min_delay=FIRST_PAUSE_S
        )
        self.operator = operator.layer(TimeoutLayer(timeout=CONTROL_S, io_timeout=BYTES_S)).layer(retries)

    def size(self, name: str) -> int | None:
        """How many bytes an object has; None if there is none."""
        try:
            return attempt(lambda: self.operator.stat(name)).content_length
        except FileNotFoundError:
            return None

    def read_into(self, name: str, buffer: memoryview, offset: int) -> None:
        """Fill the buffer with an object's bytes from `offset`."""
        data = attempt(lambda: self.operator.read(name, offset=offset, size=len(buffer)))
        if len(data) != len(buffer):
            raise OSError(errno.EIO, f"{len(data)} bytes came, {len(buffer)} were asked for")
        buffer[:] = data

    def read(self, name: str) -> bytes:
        """A small object."""
        return attempt(lambda: self.operator.read(name))

    def write(self, name: str, data: bytes) -> None:
        """Put a small object."""
        attempt(lambda: self.operator.write(name, data))

    def open(self, name: str, part_bytes: int, parts: int) -> File:
        """A writer that sends so many parts at a time; nothing is seen of the object before it is closed."""
        return attempt(lambda: self.operator.open(name, "wb", chunk=part_bytes, concurrent=parts))

    def delete(self, name: str) -> None:
        """Remove an object; it is no error if there is none."""
        attempt(lambda: self.operator.delete(name))

    def names(self, prefix: str) -> list[str]:
        """The objects whose names begin with `prefix`, which ends with "/"."""
        entries = attempt(lambda: list(self.operator.list(prefix)))
        return [entry.path for entry in entries if not entry.path.endswith("/")]

    def refusal(self, error: OSError) -> Refusal:
        """What a client is told when a question to the bucket fails."""
        store = self.store
        if error.errno == errno.EACCES:
            message = (
                f"store {store.id} refuses Mover's credentials ({error.strerror}): its administrator must mend them"
            )
            return Refusal(Why.DENIED, message)
        if error.errno == errno.ENOSPC:
            return Refusal(Why.FULL, f"store {store.id} is full")
        return Refusal(Why.GONE, f"store {store.id} does not work: {error.strerror}")


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
    code, kind = CODE.search(message), KIND.match(message)
    name = kind[0] if kind else "Unexpected"
    if code is None:
        text = "it does not answer" if "timeout" in message else SAID.get(name, "it cannot be reached, or breaks off")
    else:
        text = code[1]
    if code is not None and code[1] in FULL_CODES:
        return OSError(errno.ENOSPC, text)
    if code is not None and code[1] == "NoSuchBucket":
        return OSError(errno.ENODEV, "there is no such bucket")
    return OSError(ERRNOS.get(name, errno.EIO), text)


OpenDalErrors = tuple(
    one for one in vars(opendal.exceptions).values() if isinstance(one, type) and issubclass(one, Exception)
)
