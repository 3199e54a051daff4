"""How requests are answered: JSON, errors, and the end of a connection whose body broke."""

from __future__ import annotations

import logging
from typing import Literal

import msgspec
from sanic import Request

from config.log import facts
from mover.front import sanic_seam
from mover.front.errors import BodyBroken, ClientGone, RequestError
from mover.front.sanic_seam import Headers, Sent

log = logging.getLogger(__name__)

JSON = ("Content-Type", "application/json")


class Written(msgspec.Struct):
    """The answer to a write."""

    bytes_written: int
    flushed: bool
    ok: Literal[True] = True


class Answered(Exception):
    """The request was answered already, with an error."""


async def send_json(request: Request, status: int, answer: object, headers: Headers) -> Sent:
    """A JSON body."""
    body = msgspec.json.encode(answer)
    return await sanic_seam.reply(request, status, [*headers, JSON, ("Content-Length", str(len(body)))], body)


async def send_error(request: Request, error: RequestError) -> Sent:
    """Every error: a status and `{"error": ...}`."""
    if error.closes:
        sanic_seam.close_after(request)
    noted = sanic_seam.noted(request)
    if not noted.ended:
        noted.account.failed(error.fault)
    answer: dict[str, object] = {"error": error.message}
    if error.lost is not None:
        answer["lost"] = [list(span) for span in error.lost]
    return await send_json(request, error.status, answer, error.headers)


async def break_off(request: Request, error: BodyBroken | ClientGone) -> Sent:
    """No client may take a short body for a whole one: the connection ends here."""
    is_ours = isinstance(error, BodyBroken)
    account = sanic_seam.noted(request).account
    account.failed("broken_off" if is_ours else "gone")
    if isinstance(error, ClientGone) and error.slow:
        account.turned_away("slow")
    if isinstance(error, BodyBroken):
        log.error("broken off", extra=facts(transfer=error.transfer, offset=error.offset, reason=str(error)))
    sanic_seam.close_after(request)
    sanic_seam.transport(request).abort()
    return Sent(0 if is_ours else 499)
