"""VISOR's routes: every path of its image server, under a prefix."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from sanic import Request, Sanic

from mover.front import sanic_seam
from mover.front.errors import BodyBroken, ClientGone
from mover.front.sanic_seam import Sent
from mover.library.call import Call
from mover.library.errors import ApiError
from mover.library.library import Library
from mover.library.visor import answers, images
from mover.library.visor.authority import VisorAuthority

App = Sanic[Any, Any]
Handler = Callable[..., Awaitable[Sent]]
Methods = Mapping[str, Handler]

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
READING = ("GET", "HEAD")

_ONE: Methods = {"GET": images.read, "HEAD": images.head, "PUT": images.change, "DELETE": images.delete}
ROUTES: dict[str, Methods] = {
    "/images": {"GET": images.list_brief, "POST": images.create},
    "/images/detail": {"GET": images.list_detail},
    "/images/<image_id:str>": _ONE,
    "/all": {"DELETE": images.delete_all},
}
# A heartbeat, of whoever asks.
STATUS = "/status"


def table(prefix: str) -> dict[str, list[str]]:
    """Every path with its methods."""
    return {prefix + path: list(methods) for path, methods in ROUTES.items()} | {prefix + STATUS: list(READING)}


def add(app: App, library: Library) -> None:
    """Add all of them, and whatever else is under the prefix, so that all errors there are VISOR's."""
    settings = library.settings
    prefix = settings.visor_prefix
    authority = VisorAuthority(Path(settings.visor_users_file), prefix, settings.visor_window_s, library.authority)
    for path, methods in ROUTES.items():
        handler = partial(_answer, library, authority, methods)
        app.add_route(handler, prefix + path, methods=METHODS, stream=True, name=f"library:visor{path}")
    app.add_route(partial(_status), prefix + STATUS, methods=METHODS, stream=True, name="library:visor/status")
    for path in ("", "/<rest:path>"):
        app.add_route(partial(_stray), prefix + path, methods=METHODS, stream=True, name=f"stray:visor{path}")


async def _answer(
    library: Library, authority: VisorAuthority, methods: Methods, request: Request, **segments: str
) -> Sent:
    """Who asks, then the handler; what it raises in VISOR's form."""
    try:
        handler = _handler(methods, request)
        caller = await authority.caller(request)
        if request.method not in READING:
            caller.check_writer()
        decoded = {name: unquote_to_bytes(segment).decode("utf-8", "replace") for name, segment in segments.items()}
        return await handler(Call(library, request, caller), **decoded)
    except (ClientGone, BodyBroken):
        raise
    except Exception as error:
        if sanic_seam.answers(request):
            # In the middle of a list: whoever reads it must not take it for whole.
            raise BodyBroken(f"an answer of VISOR's API: {error!r}", 0, 0) from error
        return await answers.send_error(request, error)


async def _status(request: Request) -> Sent:
    try:
        _handler({"GET": _ok, "HEAD": _ok}, request)
    except ApiError as error:
        return await answers.send_error(request, error)
    return await _ok(request)


async def _ok(request: Request) -> Sent:
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "2")]
    return await sanic_seam.reply(request, 200, headers, b"OK")


async def _stray(request: Request, rest: str = "") -> Sent:
    return await answers.send_error(request, ApiError(404, "Invalid operation or path."))


def _handler(methods: Methods, request: Request) -> Handler:
    handler = methods.get(request.method)
    if handler is None:
        raise ApiError(405, f"{request.method} is not possible here", [("Allow", ", ".join(methods))])
    return handler
