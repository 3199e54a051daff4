"""One request's use of an image, from its ticket to its last byte.

id ──► ticket ──► lane ──► admission ──► the request's work ──► leave, in the reverse order
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from msgspec.structs import replace
from sanic import Request

from config.log import AUDIT, facts
from config.settings import AllowSettings, FrontSettings
from mover.front import asked, sanic_seam
from mover.front.account import Account
from mover.front.admission import Admission, Seat, Use
from mover.front.answers import Written, send_json
from mover.front.dialect import DIALECTS, Dialect
from mover.front.errors import RequestError, lane_lost
from mover.front.link import Link
from mover.front.meter import Meter, Meters
from mover.front.pace import Pace
from mover.front.ranges import Span
from mover.front.sanic_seam import Sent
from mover.front.usage import Connection, Moving
from mover.serve.messages import Ticket
from workers.lane.front_lane import FrontLane
from workers.lane.lane_states import LaneLost
from workers.lane.protocol import Flag, ImageFacts

audit = logging.getLogger(AUDIT)

CHALLENGE = ("WWW-Authenticate", 'Bearer realm="mover"')

# What a browser asks for before it lets a script send and see more than the plainest headers.
CORS = (
    ("Access-Control-Allow-Headers", "Content-Range, Content-Type, If-Range, Range"),
    ("Access-Control-Expose-Headers", "Accept-Ranges, Content-Disposition, Content-Range, Retry-After"),
)
READING = "GET, HEAD, OPTIONS"
WRITING = "GET, HEAD, PUT, PATCH, POST, OPTIONS"
# A whole file is replaced, never changed in parts.
REPLACING = "GET, HEAD, PUT, POST, OPTIONS"


class Door:
    """Where requests come to images."""

    def __init__(
        self,
        link: Link,
        admission: Admission,
        meters: Meters,
        settings: FrontSettings,
        unix_socket: str | None,
        account: Account,
    ) -> None:
        self.link = link
        self.account = account
        self.admission = admission
        self.meters = meters
        self.settings = settings
        self.unix_socket = unix_socket
        # What a client may name that no ticket has been installed for.
        self.allow = AllowSettings()

    async def ticket(self, request: Request, image_id: str) -> Ticket:
        """The ticket that a request names. Raises RequestError, in the dialect that the id had or is said to have."""
        name = asked.decode_id(image_id)
        try:
            ticket = await self.link.ticket(name)
        except LaneLost as lost:
            raise lane_lost(lost) from lost
        if ticket is None:
            raise self.unknown(name)
        noted = sanic_seam.noted(request)
        noted.transfer, noted.dialect = ticket.transfer, ticket.dialect
        if ticket.subject is not None and ticket.subject != sanic_seam.client_subject(request):
            raise RequestError(403, "the ticket is bound to another client certificate")
        if ticket.token is not None and not asked.has_token(request, ticket.token):
            audit.warning("wrong token", extra=facts(transfer=ticket.transfer, client=sanic_seam.client(request)))
            raise RequestError(401, "the ticket wants its bearer token: Authorization: Bearer TOKEN", [CHALLENGE])
        if ticket.inactivity_s is not None:
            sanic_seam.keep_alive_for(request, ticket.inactivity_s)
        if DIALECTS[ticket.dialect].close_is_heard and "close" in request.args and asked.flag(request, "close", False):
            sanic_seam.close_after(request)
        return ticket

    def pace(self, export_key: str, ticket: Ticket | None = None, patience_s: float | None = None) -> Pace:
        """How slowly, and how fast, a client may move a body of this export."""
        meter = self.meters.meter(ticket, export_key)
        return Pace(patience_s or self.settings.progress_s, self.settings.least_bytes_s, meter)

    def unknown(self, name: str) -> RequestError:
        """There is no such ticket, or no more."""
        dialect = DIALECTS[self.link.removed_dialect(name) or self.settings.unknown_id]
        return RequestError(dialect.unknown_status, dialect.unknown_error, closes=dialect.unknown_closes)

    def visit(self, request: Request, ticket: Ticket, use: Use) -> Visit:
        """`async with` it at once: a ticket that was removed meanwhile would be used once more."""
        return Visit(self, request, ticket, use)

    def headers(self, methods: str) -> list[tuple[str, str]]:
        """What every answer has for which an image was asked, or could be."""
        headers = [("Accept-Ranges", "bytes"), ("Access-Control-Allow-Methods", methods)]
        if self.settings.cors_origin:
            headers += [("Access-Control-Allow-Origin", self.settings.cors_origin), *CORS]
        return headers


class Visit:
    """`async with`: a lane and what is known of its image, for one request; its errors become the client's.

    A class, since a generator would cost a small GET a twentieth of its time. `moving` is the body under way, if there
    is one, `image` what the ticket lets its client see of the image.
    """

    __slots__ = (
        "_canceled",
        "_done",
        "_door",
        "_seat",
        "_task",
        "_use",
        "connection",
        "dialect",
        "image",
        "lane",
        "moving",
        "request",
        "ticket",
    )

    lane: FrontLane
    image: ImageFacts
    _task: asyncio.Task[object]

    def __init__(self, door: Door, request: Request, ticket: Ticket, use: Use) -> None:
        self.request = request
        self.ticket = ticket
        self.dialect: Dialect = DIALECTS[ticket.dialect]
        self._door = door
        self._use = use
        self._seat: Seat | None = None
        self._canceled = False
        self._done: Span | None = None
        self.moving: Moving | None = None
        self.connection: Connection = sanic_seam.connection(request)

    async def __aenter__(self) -> Visit:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        link = self._door.link
        try:
            self.lane, image = await link.lane(self.ticket, self)
        except BaseException as error:
            self._translate(error)
            raise
        self.image = _bounded(image, self.ticket.size_bytes)
        try:
            await self.admit(self._use)
        except BaseException as error:
            self._leave(error)
            self._translate(error)
            raise
        self._door.account.entered(sanic_seam.noted(self.request))
        return self

    async def admit(self, use: Use) -> None:
        """Enter for this use, after a time in line if need be. Raises RequestError."""
        admission, link = self._door.admission, self._door.link
        if self._seat is not None or not admission.counts(use):
            return
        key, limit = link.key(self.ticket), self._door.meters.requests(self.ticket)
        self._seat = admission.enter_nowait(key, use, limit)
        if self._seat is None:
            began_ns = time.monotonic_ns()
            self._seat = await admission.enter(key, use, limit)
            self._door.account.seat.since(began_ns)
            if not link.in_force(self.ticket):  # it was removed while the request stood in line
                raise self._door.unknown(self.ticket.id)

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._door.account.left(sanic_seam.noted(self.request))
        self._leave(error)
        self._translate(error)

    def _translate(self, error: BaseException | None) -> None:
        """Raise the client's error in the place of ours, where there is one."""
        if isinstance(error, LaneLost):
            raise lane_lost(error) from error
        if isinstance(error, asyncio.CancelledError) and self._canceled and not self.connection.lost:
            self._task.uncancel()
            raise self._door.unknown(self.ticket.id) from error

    def _leave(self, error: BaseException | None) -> None:
        if self._seat is not None:
            self._door.admission.leave(self._seat)
        self._door.link.leave(self.lane, self.ticket, self)
        if isinstance(error, asyncio.CancelledError) and (self.connection.lost or not self._canceled):
            self._client_gone()
        if isinstance(error, RequestError):
            error.headers = [*self.headers(), *error.headers]

    def _client_gone(self) -> None:
        noted = sanic_seam.noted(self.request)
        if not noted.ended:
            self._door.account.failed("gone")
            self._door.account.ended(noted, 499)

    # -- as its ticket's guest -------------------------------------------------------------------------------

    @property
    def client(self) -> str:
        """Where the request comes from."""
        return sanic_seam.client(self.request)

    @property
    def moved(self) -> Span | None:
        """What it has moved so far."""
        return self._done if self.moving is None else self.moving.moved

    def has_moved(self, span: Span) -> None:
        """The request has moved this, all at once."""
        self._done = span

    def cancel(self) -> None:
        """The ticket was canceled: what has not begun to answer is told so, what has is broken off."""
        self._canceled = True
        if sanic_seam.answers(self.request) or (self.moving is not None and self.moving.began):
            sanic_seam.transport(self.request).abort()
        else:
            self._task.cancel()

    # -- what the image allows -------------------------------------------------------------------------------

    @property
    def patience_s(self) -> float:
        """How long a client may neither take nor send a byte."""
        return self.ticket.inactivity_s or self._door.settings.progress_s

    def meter(self) -> Meter:
        """How fast the image may be read for this request."""
        return self._door.meters.meter(self.ticket, self._door.link.key(self.ticket))

    def pace(self) -> Pace:
        """How slowly a client may move a body."""
        return self._door.pace(self._door.link.key(self.ticket), self.ticket, self.patience_s)

    @property
    def is_whole_file(self) -> bool:
        """The image is a file that is read in parts and replaced as a whole, not a block device."""
        return self.image.whole_file

    @property
    def writable(self) -> bool:
        """Both the ticket and the export allow writing."""
        return self.ticket.write and not self.image.read_only

    @property
    def methods(self) -> str:
        """The methods that the image allows."""
        if not self.writable:
            return READING
        return REPLACING if self.is_whole_file else WRITING

    @property
    def zeroing(self) -> Flag:
        """Whether zeros may become holes."""
        return Flag.MAY_HOLE if self.ticket.sparse or self.dialect.always_sparse else Flag.NONE

    def headers(self) -> list[tuple[str, str]]:
        """The headers of every answer about this image."""
        return self._door.headers(self.methods)

    def check_readable(self) -> None:
        """Raise RequestError where the ticket allows nothing."""
        if not self.ticket.read:
            raise RequestError(403, "the ticket does not allow reading", closes=True)

    def check_writable(self) -> None:
        """Raise RequestError where there is nothing to be written."""
        if not self.ticket.write:
            raise RequestError(403, "the ticket does not allow writing", [("Allow", READING)])
        if self.image.read_only:
            raise RequestError(403, "the export is read-only", [("Allow", READING)])

    def check_block_device(self, what: str) -> None:
        """Raise RequestError for what can be done with a block device only."""
        if self.is_whole_file:
            raise RequestError(400, f"{what} is not possible for a whole file, which is read and replaced only")

    # -- answers ---------------------------------------------------------------------------------------------

    async def send_json(self, answer: object, headers: Sequence[tuple[str, str]] = ()) -> Sent:
        """200 with a JSON body."""
        return await send_json(self.request, 200, answer, [*self.headers(), *headers])

    async def send_written(self, count: int, flushed: bool) -> Sent:
        """200 after a write."""
        return await self.send_json(Written(count, flushed))


def _bounded(image: ImageFacts, size_bytes: int | None) -> ImageFacts:
    """An image as a ticket of this size shows it. A client reads and writes within both."""
    if size_bytes is None or size_bytes >= image.size_bytes:
        return image
    return replace(image, size_bytes=size_bytes)
