"""What each request comes to: its numbers for /metrics, and its line in the log."""

from __future__ import annotations

import os
import re
import time
from itertools import count

from sanic import Request

from config.log import REQUEST, Batch
from mover.front import counts
from mover.front.counts import BYTES, FAULTS, KINDS, METHODS, REQUESTS, STAGES, STATUSES, TIME, WAITS
from workers.lane.tally import Durations, unshared

# What a client may call its request: it stands in headers and logs as it is.
_SANE = re.compile(r"[A-Za-z0-9._:/+=@-]{1,64}").fullmatch
# One line for each request: what it says, and how. No value can hold a blank or a quote, so none is escaped, which
# would cost as much as the rest.
LINE = {
    "method": "s", "kind": "s", "transfer": "d", "status": "d", "offset": "d", "bytes": "d", "time_s": ".6f",
    "client": "s", "request": "s",
}  # fmt: skip
LIBRARY = frozenset({"", "v1", "v2", "versions", "visor"})

_numbers = count(1)
# Unique among all processes of all starts; the rest is counted, which costs a tenth of a UUID.
_prefix = os.urandom(5).hex()


def request_id(given: str | None) -> str:
    """The client's name for a request, if it can be used, or one of our own."""
    if given is not None and _SANE(given):
        return given
    return f"{_prefix}-{next(_numbers)}"


class Account:
    """All requests of one front end; `in_flight` are those that use an image now."""

    def __init__(self, words: memoryview | None = None) -> None:
        self._words = words = unshared(counts.LAYOUT) if words is None else words
        self.lines: Batch | None = None  # None: requests have no line
        self.in_flight = 0
        self.seat, self.lane, self.slot, self.job, self.client = (
            Durations(words, WAITS.at(stage=stage)) for stage in STAGES
        )
        self._taken, self._given = BYTES.at(direction="in"), BYTES.at(direction="out")
        self._time = {kind: Durations(words, TIME.at(kind=kind)) for kind in KINDS}
        self._kinds: dict[str, str] = {}
        # The word of each combination that was seen; there are 6,624 of them, and a server sees a few.
        self._requests: dict[tuple[str, str, int, str], int] = {}

    def received(self, request: AccountedRequest, count: int) -> None:
        """So many bytes of an image have come from the client."""
        request.moved_bytes += count
        self._words[self._taken] += count

    def sent(self, request: AccountedRequest, count: int) -> None:
        """So many bytes of an image were given to the client's connection."""
        request.moved_bytes += count
        self._words[self._given] += count

    def failed(self, fault: str) -> None:
        """A request ends with an error of this kind."""
        self._words[FAULTS.at(kind=fault)] += 1

    def replayed(self, jobs: int) -> None:
        """So many jobs are submitted again."""
        self._words[counts.REPLAYS.first] += jobs

    def ended(self, request: AccountedRequest, status: int) -> None:
        """The answer is written, or there will be none (0: broken off, 499: the client is gone)."""
        if request.ended:
            return
        request.ended = True
        duration_ns = time.monotonic_ns() - request.began_ns
        kind = self._kind(request)
        key = (kind, request.method, status, request.dialect)
        at = self._requests.get(key)
        if at is None:
            at = self._requests[key] = _word(*key)
        self._words[at] += 1
        self._time[kind].add(duration_ns)
        if self.lines is not None:
            self._write(self.lines, request, kind, status, duration_ns)

    def _write(self, lines: Batch, request: AccountedRequest, kind: str, status: int, duration_ns: int) -> None:
        method = request.method if request.method in METHODS else "other"
        client = request.conn_info.client_ip if request.conn_info is not None else ""
        moved_bytes, time_s = request.moved_bytes, duration_ns / 1e9
        facts = (method, kind, request.transfer, status, request.offset, moved_bytes, time_s, client or "unix")
        lines.add((*facts, request.request_id))

    def _kind(self, request: Request) -> str:
        route = request.route
        if route is None:
            return "service"
        kind = self._kinds.get(route.name)
        if kind is None:
            kind = kind_of(route.path)
            kind = self._kinds[route.name] = kind if kind in KINDS else "service"
        return kind


class AccountedRequest(Request):
    """A request with what is noted of it: `transfer` is its ticket's number, `offset` where its body began."""

    account = Account()
    transfer = 0
    dialect = "none"
    offset = 0
    moved_bytes = 0
    ended = False

    def __init__(self, **parts: object) -> None:
        self.began_ns = time.monotonic_ns()
        super().__init__(**parts)  # type: ignore[arg-type]
        self.request_id = request_id(self.headers.get("x-request-id"))
        REQUEST.set(self.request_id)


def kind_of(path: str) -> str:
    """The kind of the requests of a route, by its path as Sanic writes it: `images/<image_id:str>/extents`."""
    first, *rest = path.split("/")
    if first == "images":
        return "image" if len(rest) < 2 else rest[1]
    return "library" if first in LIBRARY else "service"


def _word(kind: str, method: str, status: int, dialect: str) -> int:
    return REQUESTS.at(
        kind=kind,
        method=method if method in METHODS else "other",
        status=str(status) if str(status) in STATUSES else "other",
        dialect=dialect,
    )
