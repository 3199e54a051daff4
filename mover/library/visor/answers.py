"""How VISOR's view answers: JSON or XML, errors as {code, message}, those of HEAD in headers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping

from sanic import Request

from config.log import facts
from mover.front import sanic_seam
from mover.front.sanic_seam import ChunkedBody, Headers, Sent
from mover.library import seam
from mover.library.call import Call
from mover.library.errors import ApiError, api_error
from mover.library.header_text import safe
from mover.library.registry.errors import RegistryError
from mover.library.visor import filters
from mover.library.visor.rendering import FRAMES, TYPES, Form, chosen, render, render_item

log = logging.getLogger(__name__)

VARY = ("Vary", "Accept")
# The statuses that VISOR's clients know. Who may not, is told 403; what cannot be taken, 400.
STATUSES = {401: 403, 410: 409, 412: 409, 413: 400, 415: 400}
# Of a list, what is written at once.
PIECE_BYTES = 65536
FULL = (seam.StorageFull, seam.StoreAddDisabled)


async def send(call: Call, answer: Mapping[str, object]) -> Sent:
    """200 with an answer in the client's form."""
    return await _send(call.request, 200, _form(call), answer)


async def send_list(call: Call, images: AsyncIterator[Mapping[str, object]]) -> Sent:
    """All images, as they come: there is no paging, and a library of any size is not held in memory.

    Raises ApiError 404 if there are none.
    """
    first = await anext(images, None)
    if first is None:
        raise ApiError(404, "No images found.")
    form = _form(call)
    before, between, after = FRAMES[form]
    body = ChunkedBody(call.request, 200, [("Content-Type", TYPES[form]), VARY])
    await body.begin()
    piece = bytearray(before + render_item(form, first))
    async for image in images:
        piece += between + render_item(form, image)
        if len(piece) >= PIECE_BYTES:
            await body.send(bytes(piece))
            piece.clear()
    await body.send(bytes(piece) + after)
    return await body.end()


async def send_error(request: Request, error: Exception) -> Sent:
    """What went wrong, in VISOR's statuses and form."""
    told = _told(error)
    headers = [*told.headers]
    if request.method == "HEAD":
        headers += [("x-error-code", str(told.status)), ("x-error-message", safe(told.message))]
        return await sanic_seam.reply(request, told.status, [*headers, ("Content-Length", "0")])
    accept = sanic_seam.header(request, "accept")
    form = chosen(accept, "xml" if "format=xml" in request.query_string.split("&") else None)
    return await _send(request, told.status, form, {"code": told.status, "message": told.message}, headers)


def _told(error: Exception) -> ApiError:
    if isinstance(error, RegistryError):
        log.error("the catalogue cannot be asked", extra=facts(reason=str(error)))
    if isinstance(error, FULL):
        return ApiError(503, error.message)
    found = api_error(error)
    if found is None:
        log.exception("request to the library failed", exc_info=error)
        return ApiError(500, "Internal error; the log has it")
    headers = [one for one in found.headers if one[0] != "WWW-Authenticate"]
    return ApiError(STATUSES.get(found.status, found.status), found.message, headers)


def _form(call: Call) -> Form:
    return chosen(call.header("accept"), filters.rendering(call.arguments()))


async def _send(request: Request, status: int, form: Form, answer: Mapping[str, object], headers: Headers = ()) -> Sent:
    body = render(form, answer)
    sent = [*headers, ("Content-Type", TYPES[form]), VARY, ("Content-Length", str(len(body)))]
    return await sanic_seam.reply(request, status, sent, body)
