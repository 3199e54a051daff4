"""One request to the library: who asks, and how it is read and answered."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs

import msgspec
from sanic import Request

from mover.front import sanic_bodies, sanic_seam
from mover.front.errors import ClientGone
from mover.front.sanic_seam import Headers, Sent
from mover.library import answers
from mover.library.callers import Caller
from mover.library.checks import is_uuid
from mover.library.errors import ApiError, no_image
from mover.library.library import Library
from mover.library.records import ImageRecord

JSON_BYTES = 1024 * 1024
# Of a query: a client that filters by more is a program that went wrong.
FIELDS = 200


class Call:
    """A request, its caller, and the library that it is made to."""

    def __init__(self, library: Library, request: Request, caller: Caller) -> None:
        self.library = library
        self.request = request
        self.caller = caller

    async def image(self, image_id: str) -> ImageRecord:
        """An image that is there for the caller. Raises ApiError 404, for deleted ones, too."""
        if not is_uuid(image_id):
            raise no_image(image_id[:80])
        image = await self.library.image(self.caller, image_id.lower())
        if image.deleted_at_us is not None:
            raise no_image(image_id)
        return image

    # -- what it says ------------------------------------------------------------------------------------------

    def header(self, name: str) -> str | None:
        """A header's value."""
        return sanic_seam.header(self.request, name)

    def arguments(self) -> dict[str, list[str]]:
        """The query, with arguments that are empty. Raises ApiError 400."""
        try:
            return parse_qs(self.request.query_string, keep_blank_values=True, errors="strict", max_num_fields=FIELDS)
        except (ValueError, UnicodeDecodeError):
            raise ApiError(400, f"The query is not UTF-8, or has more than {FIELDS} arguments") from None

    @property
    def body_bytes(self) -> int | None:
        """Bytes of the body; None if it comes in chunks."""
        return sanic_bodies.body_left(self.request)

    @property
    def content_type(self) -> str:
        """What the body is said to be, without parameters."""
        return (self.header("content-type") or "").partition(";")[0].strip().lower()

    def check_octets(self, status: int) -> None:
        """Raise ApiError unless the body is said to be an image's data."""
        if self.content_type != "application/octet-stream":
            raise ApiError(status, "Content-Type must be application/octet-stream")

    async def json(self) -> Any:
        """The body, parsed. Raises ApiError 400 and 413, and ClientGone when it does not come."""
        try:
            async with asyncio.timeout(self.request.app.config.PROGRESS_S):
                body = await sanic_bodies.read_body(self.request, JSON_BYTES)
        except TimeoutError:
            raise ClientGone(slow=True) from None
        if body is None:
            raise ApiError(413, f"The JSON body is larger than {JSON_BYTES} bytes")
        try:
            return msgspec.json.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ApiError(400, f"Malformed JSON in request body: {error}") from error

    def url(self, path: str) -> str:
        """The URL of a path of this service, as the client called it."""
        return base_url(self.request) + path

    # -- how it is answered ------------------------------------------------------------------------------------

    async def send(self, status: int, headers: Headers = (), body: bytes = b"") -> Sent:
        """An answer."""
        return await answers.send(self.request, status, headers, body)

    async def send_json(self, status: int, answer: object, headers: Headers = ()) -> Sent:
        """A JSON body."""
        return await answers.send_json(self.request, status, answer, headers)


def base_url(request: Request) -> str:
    """Scheme and host, as the client named them."""
    host = sanic_seam.header(request, "host") or "localhost"
    return f"{request.scheme}://{host}"
