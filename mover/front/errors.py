"""What goes wrong with a request, as its client sees it: a status and one sentence."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from workers.lane.lane_states import LaneLost
from workers.lane.protocol import Completion, Status

# Why an image has gone in the middle of a request.
GONE = {
    errno.ENOTCONN: "the NBD server is gone",
    errno.ENOENT: "the file is gone",
    errno.ESTALE: "another image, or one of another size, has taken its place",
}


class RequestError(Exception):
    """An answer other than success. `headers` are added to it; `lost` are ranges that must be sent again.

    `closes` says that the connection ends with it, `fault` whose fault it was where the status does not tell.
    """

    def __init__(
        self,
        status: int,
        message: str,
        headers: Sequence[tuple[str, str]] = (),
        lost: list[tuple[int, int]] | None = None,
        closes: bool = False,
        fault: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers
        self.lost = lost
        self.closes = closes
        self._fault = fault

    @property
    def fault(self) -> str:
        """Whose fault it was, as mover/front/counts.py tells them apart."""
        if self._fault or self.lost is not None:
            return self._fault or "lost"
        return "request" if self.status < 500 else "unreachable" if self.status in (502, 503) else "nbd"


class ClientGone(Exception):
    """The client has left, or is too `slow`: there is nobody to answer."""

    def __init__(self, slow: bool = False) -> None:
        super().__init__()
        self.slow = slow


class BodyBroken(Exception):
    """The image failed after the headers went out, at `offset` of the image: the connection must be broken off."""

    def __init__(self, reason: str, transfer: int, offset: int) -> None:
        super().__init__(reason)
        self.transfer = transfer
        self.offset = offset


def lane_lost(lost: LaneLost) -> RequestError:
    """The export cannot be reached: 503 when trying again soon makes sense, else 502."""
    if lost.retry_after_s is not None:
        return RequestError(503, lost.reason, [("Retry-After", str(max(1, round(lost.retry_after_s))))])
    return RequestError(502, lost.reason)


def job_failed(completion: Completion, doing: str, offset: int, length: int) -> RequestError:
    """The export refused a job: which bytes, and why."""
    where = f"{doing} of {length} bytes at offset {offset}"
    if completion.status is Status.GONE:
        return RequestError(502, f"{where}: {GONE.get(completion.value, 'the image is gone')}")
    reason = os.strerror(completion.value) if completion.value else completion.status.name
    return RequestError(500, f"{where}: {reason}")
