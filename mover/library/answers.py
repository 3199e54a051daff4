"""Answers of the library: JSON, and errors in the form that the client accepts.

glanceclient sends `Accept: */*` and dies of a JSON error whose values are not objects; it reads HTML.
"""

from __future__ import annotations

import html
import uuid
from http import HTTPStatus

import msgspec
from sanic import Request

from mover.front import sanic_seam
from mover.front.sanic_seam import Headers, Sent
from mover.library.errors import ApiError

JSON = ("Content-Type", "application/json")
HTML = ("Content-Type", "text/html; charset=UTF-8")
PLAIN = ("Content-Type", "text/plain; charset=UTF-8")
OCTETS = ("Content-Type", "application/octet-stream")

_ERROR_PAGE = """<html>
 <head>
  <title>{title}</title>
 </head>
 <body>
  <h1>{title}</h1>
  {message}<br /><br />
 </body>
</html>
"""


def request_id(request: Request) -> str:
    """The name that OpenStack's clients know a request by: their answer's, and the task's that it began."""
    ctx = request.ctx
    if not hasattr(ctx, "openstack_id"):
        ctx.openstack_id = f"req-{uuid.uuid4()}"
    named: str = ctx.openstack_id
    return named


def request_id_header(request: Request) -> tuple[str, str]:
    """The header that every answer of the library has."""
    return ("x-openstack-request-id", request_id(request))


async def send(request: Request, status: int, headers: Headers = (), body: bytes = b"") -> Sent:
    """An answer whose body, if there is one, `headers` say the type of."""
    length = [] if status == 204 else [("Content-Length", str(len(body)))]
    return await sanic_seam.reply(request, status, [request_id_header(request), *headers, *length], body)


async def send_head(request: Request, status: int, headers: Headers) -> Sent:
    """An answer whose headers say all, Content-Length too: to HEAD, or with a body of no bytes."""
    return await sanic_seam.reply(request, status, [request_id_header(request), *headers])


async def send_json(request: Request, status: int, answer: object, headers: Headers = ()) -> Sent:
    """A JSON body."""
    return await send(request, status, [*headers, JSON], msgspec.json.encode(answer))


async def send_error(request: Request, error: ApiError) -> Sent:
    """HTML, plain text, or JSON, as the client accepts."""
    title = f"{error.status} {_phrase(error.status)}"
    accepted = (sanic_seam.header(request, "accept") or "*/*").lower()
    if "text/html" in accepted or "*/*" in accepted:
        page = _ERROR_PAGE.format(title=title, message=html.escape(error.message))
        return await send(request, error.status, [*error.headers, HTML], page.encode())
    if "application/json" in accepted:
        answer = {"message": error.message, "code": title, "title": _phrase(error.status)}
        return await send_json(request, error.status, answer, error.headers)
    text = f"{title}\n\n{error.message}\n\n   "
    return await send(request, error.status, [*error.headers, PLAIN], text.encode())


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase
