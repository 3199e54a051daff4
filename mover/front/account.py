"""What each request comes to: its numbers for /metrics, and its line in the log."""

from __future__ import annotations

import os
import re
import time
from itertools import count

from sanic import Request

from config.log import REQUEST
from mover.front import counts
from mover.front.counts import BYTES, FAULTS, KINDS, METHODS, REFUSALS, REQUESTS, STAGES, STATUSES, TIME, WAITS
from mover.front.request_log import RequestLog
from mover.serve.messages import TransferUse
from workers.lane.tally import Durations, unshared

# What a client may call its request: it stands in headers and logs as it is.
_SANE = re.compile(r"[A-Za-z0-9._:/+=@-]{1,64}").fullmatch
_LIBRARYS = re.compile(r"[^.]+\.(library|stray):")
# Transfers that are shown with what they moved; those in use are among them.
REMEMBERED = 1000

_numbers = count(1)
# Unique among all processes of all starts; the rest is counted, which costs a tenth of a UUID.
_prefix = os.urandom(5).hex()


def request_id(given: str | None) -> str:
    """The client's name for a request, if it can be used, or one of our own."""
    if given is not None and _SANE(given):
        return given
    return f"{_prefix}-{next(_numbers)}"


class Account:
    """All requests of one front end; `active` are those that use an image now."""

    def __init__(self, words: memoryview | None = None) -> None:
        self._words = words = unshared(counts.LAYOUT) if words is None else words
        self.lines: RequestLog | None = None  # None: requests have no line
        self.active: set[AccountedRequest] = set()
        # By transfer, the one that was used last at the end.
        self._moved: dict[int, Moved] = {}
        self.seat, self.lane, self.slot, self.job, self.client = (
            Durations(words, WAITS.at(stage=stage)) for stage in STAGES
        )
        self._taken, self._given = BYTES.at(direction="in"), BYTES.at(direction="out")
        self._time = {kind: Durations(words, TIME.at(kind=kind)) for kind in KINDS}
        # By route, method, status and dialect, as far as there were such requests.
        self._outcomes: dict[tuple[str | None, str, int, str], Outcome] = {}

    def received(self, request: AccountedRequest, count: int) -> None:
        """So many bytes of an image have come from the client."""
        request.moved_bytes += count
        self._words[self._taken] += count

    def sent(self, request: AccountedRequest, count: int) -> None:
        """So many bytes of an image were given to the client's connection."""
        request.moved_bytes += count
        self._words[self._given] += count

    def entered(self, request: AccountedRequest) -> None:
        """A request uses its ticket's image from now on."""
        self.active.add(request)

    def left(self, request: AccountedRequest) -> None:
        """It uses it no more."""
        self.active.discard(request)
        moved = self._moved.pop(request.transfer, None) or Moved()
        moved.add(request)
        self._moved[request.transfer] = moved
        if len(self._moved) > REMEMBERED:
            del self._moved[next(iter(self._moved))]

    def uses(self) -> list[TransferUse]:
        """What transfers have moved here, as far as they are remembered: those in use, and the last ones that were."""
        uses = {transfer: moved.copy() for transfer, moved in self._moved.items()}
        for request in self.active:
            uses.setdefault(request.transfer, Moved()).add(request, ended=False)
        rows = [
            TransferUse(transfer, use.in_flight, use.requests, use.taken, use.given) for transfer, use in uses.items()
        ]
        return rows[-REMEMBERED:]

    def failed(self, fault: str) -> None:
        """A request ends with an error of this kind."""
        self._words[FAULTS.at(kind=fault)] += 1
        if fault == "refused":
            self.turned_away("seats")

    def turned_away(self, reason: str) -> None:
        """A client is not let in, or is cut off, for one of REASONS."""
        self._words[REFUSALS.at(reason=reason)] += 1

    def replayed(self, jobs: int) -> None:
        """So many jobs are submitted again."""
        self._words[counts.REPLAYS.first] += jobs

    def ended(self, request: AccountedRequest, status: int) -> None:
        """The answer is written, or there will be none (0: broken off, 499: the client is gone)."""
        if request.ended:
            return
        request.ended = True
        duration_ns = time.monotonic_ns() - request.began_ns
        route = request.route
        key = (None if route is None else route.name, request.method, status, request.dialect)
        outcome = self._outcomes.get(key)
        if outcome is None:
            outcome = self._outcomes[key] = self._outcome(request, status)
        self._words[outcome.word] += 1
        outcome.time.add(duration_ns)
        if self.lines is not None:
            client = request.conn_info.client_ip if request.conn_info is not None else ""
            self.lines.add(
                outcome.said,
                request.transfer,
                request.offset,
                request.moved_bytes,
                duration_ns // 1000,
                client or "unix",
                request.request_id,
            )

    def _outcome(self, request: AccountedRequest, status: int) -> Outcome:
        kind = kind_of(request.route.name, request.route.path) if request.route is not None else "service"
        method = request.method if request.method in METHODS else "other"
        shown = str(status) if str(status) in STATUSES else "other"
        word = REQUESTS.at(kind=kind, method=method, status=shown, dialect=request.dialect)
        return Outcome(word, self._time[kind], (method, kind, status))


class Moved:
    """What the requests of one transfer have come to."""

    __slots__ = ("given", "in_flight", "requests", "taken")

    def __init__(self, requests: int = 0, taken: int = 0, given: int = 0) -> None:
        self.in_flight = 0
        self.requests = requests
        self.taken = taken
        self.given = given

    def copy(self) -> Moved:
        """The same, to go on from."""
        return Moved(self.requests, self.taken, self.given)

    def add(self, request: AccountedRequest, ended: bool = True) -> None:
        """One more request."""
        if ended:
            self.requests += 1
        else:
            self.in_flight += 1
        if request.method == "GET":
            self.given += request.moved_bytes
        else:
            self.taken += request.moved_bytes


class Outcome:
    """What requests have in common that ended alike: a word of the tally, a histogram, what the log says of them."""

    __slots__ = ("said", "time", "word")

    def __init__(self, word: int, time: Durations, said: tuple[str, str, int]) -> None:
        self.word = word
        self.time = time
        self.said = said


class AccountedRequest(Request):
    """A request with what is noted of it: `transfer` is its ticket's number, `offset` where its body began.

    Who makes one calls `begin`: a constructor of its own would pass all of Sanic's parts on once more, for 0.4 µs.
    """

    account = Account()
    transfer = 0
    dialect = "none"
    offset = 0
    moved_bytes = 0
    ended = False
    began_ns: int
    request_id: str

    def begin(self) -> None:
        """Its head was read."""
        self.began_ns = time.monotonic_ns()
        self.request_id = request_id(self.headers.get("x-request-id"))
        REQUEST.set(self.request_id)


def kind_of(name: str, path: str) -> str:
    """The kind of the requests of a route, by its name, `mover.library:/v1/images`, and its path, `images/<id>/flush`.

    The library's names say so, since VISOR's paths stand under a prefix of the operator's choice.
    """
    if _LIBRARYS.match(name):
        return "library"
    first, *rest = path.split("/")
    if first == "images":
        kind = "image" if len(rest) < 2 else rest[1]
        return kind if kind in KINDS else "service"
    return "service"
