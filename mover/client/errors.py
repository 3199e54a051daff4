"""What goes wrong on the client's side. Errors carry facts as attributes, and their text is made from them.

ClientError
├ RangeError             something failed at `offset`, `length` of `image`
│ ├ UnreachableError     no connection within the patience
│ │ └ UntrustedError     one, but with whom?
│ ├ BrokenError          one connection broke off; jobs try again
│ ├ RefusedError         the server answered with an error, `status` and `reason`
│ │ └ LostWritesError    a flush that did not hold for the ranges `lost`
│ └ ProtocolError        what the server said is not the contract
├ LocalError             a file, device or program on this host, `path`
├ ChangedError           a job cannot go on: it is not the same image any more
└ VerificationError      the bytes are not the same, `expected` and `found`
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

# Of an id in a message: enough to tell images apart, too little to use it, where it is long as a ticket's.
SHOWN_ID = 8
WHOLE_ID = 16


def shown(url: str) -> str:
    """The URL without what must not stand in a log: user, query, and the end of a long id."""
    parts = urlsplit(url)
    place, _, image = parts.path.rpartition("/")
    image = image if len(image) <= WHOLE_ID else image[:SHOWN_ID] + "…"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{place}/{image}"


class ClientError(Exception):
    """Everything that this package raises on purpose. `what` failed, `why`, and what to do about it, `advice`."""

    def __init__(self, what: str, why: str, advice: str) -> None:
        super().__init__(what, why, advice)
        self.what = what
        self.why = why
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.what}: {self.why}: {self.advice}"


class RangeError(ClientError):
    """`operation` ("read", "write", …) of [offset, offset + length) of `image` failed; a length of 0 is all of it."""

    def __init__(self, image: str, operation: str, offset: int, length: int, why: str, advice: str) -> None:
        where = f" of bytes {offset} to {offset + length - 1}" if length else ""
        super().__init__(f"{operation}{where} of {shown(image)}", why, advice)
        self.image = image
        self.operation = operation
        self.offset = offset
        self.length = length


class UnreachableError(RangeError):
    """The server cannot be reached."""


class UntrustedError(UnreachableError):
    """There is something, but it is not the server, or does not speak TLS as it should. Not tried again."""


class BrokenError(RangeError):
    """The connection broke, or nothing came for too long. What was under way may be tried again."""


class RefusedError(RangeError):
    """The server answered with an error. `retry_after_s` is what it said, if it did."""

    def __init__(
        self, image: str, operation: str, offset: int, length: int, status: int, reason: str,
        retry_after_s: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(image, operation, offset, length, f"{status} {reason}", _advice(status))
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s


class LostWritesError(RefusedError):
    """The flush did not hold for the ranges `lost`, (offset, length) each: write them again, then flush again."""

    def __init__(self, image: str, status: int, reason: str, lost: Sequence[tuple[int, int]]) -> None:
        super().__init__(image, "flush", 0, 0, status, reason)
        self.lost = list(lost)
        self.advice = "write these ranges again, then flush: " + ", ".join(f"{at}+{length}" for at, length in lost)


class ProtocolError(RangeError):
    """The server's answer is not what the contract says."""

    def __init__(self, image: str, operation: str, offset: int, length: int, why: str) -> None:
        super().__init__(image, operation, offset, length, why, "is this the URL of an image?")


class LocalError(ClientError):
    """A file, device or program on this host."""

    def __init__(self, path: Path | str, operation: str, why: str, advice: str) -> None:
        super().__init__(f"{operation} {path}", why, advice)
        self.path = str(path)

    @classmethod
    def from_os(cls, path: Path | str, operation: str, error: OSError, advice: str = "") -> LocalError:
        """What the system said, and `advice` or the usual one."""
        return cls(path, operation, error.strerror or str(error), advice or "free what it needs, or use another place")


class ChangedError(ClientError):
    """A job cannot go on from its journal: what was begun is of another image."""

    def __init__(self, journal: Path, why: str) -> None:
        super().__init__(f"resuming from {journal}", why, "start anew without --resume")
        self.journal = journal


class VerificationError(ClientError):
    """Two checksums that should be equal are not. `kept` is where what was moved can be looked at."""

    def __init__(self, image: str, algorithm: str, expected: str, found: str, kept: str) -> None:
        why = f"{algorithm} is {found} here, and {expected} on the server"
        super().__init__(f"verification of {shown(image)}", why, f"what was moved is kept in {kept}")
        self.image = image
        self.algorithm = algorithm
        self.expected = expected
        self.found = found
        self.kept = kept


_ADVICE = {
    400: "the server does not take this kind of request for this image",
    401: "give a token that is valid",
    403: "ask for a ticket that allows this and has not expired",
    404: "see which is not there: the image's id, its transfer, or the bitmap that was asked for",
    405: "the image does not allow this; `mover info` shows what it does",
    409: "another request holds the image: try again when it has ended",
    416: "the image is smaller than this range: check that it is the right one",
    501: "the image's server has no such operation",
}


def _advice(status: int) -> str:
    return _ADVICE.get(status, "the server's log says more; --resume goes on from here")
