"""The library's routes: every path of Glance's APIs, with the handler of each method; visor/routes.py has VISOR's."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import unquote_to_bytes

from sanic import Request, Sanic

from config.log import facts
from mover.front.errors import BodyBroken, ClientGone
from mover.front.sanic_seam import Sent
from mover.library import answers, discovery
from mover.library.call import Call
from mover.library.errors import ApiError, api_error
from mover.library.library import Library
from mover.library.registry.errors import RegistryError
from mover.library.v1 import images as v1_images
from mover.library.v1 import members as v1_members
from mover.library.v2 import data, images, imports, info, members, tasks, transfers
from mover.library.visor import routes as visor_routes

log = logging.getLogger(__name__)

App = Sanic[Any, Any]
Handler = Callable[..., Awaitable[Sent]]
Methods = Mapping[str, Handler]

READING = ("GET", "HEAD")
PREFIXES = ("/v1", "/v2")
ALL_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

_V1_ONE: Methods = {
    "GET": v1_images.read,
    "HEAD": v1_images.head,
    "PUT": v1_images.update,
    "DELETE": v1_images.delete,
}
V1: dict[str, Methods] = {
    "/v1/images": {"GET": v1_images.list_brief, "POST": v1_images.create},
    "/v1/images/detail": {"GET": v1_images.list_detail},
    "/v1/images/<image_id:str>": _V1_ONE,
    "/v1/images/<image_id:str>/members": {"GET": v1_members.list_members, "PUT": v1_members.replace},
    "/v1/images/<image_id:str>/members/<member_id:str>": {"PUT": v1_members.add, "DELETE": v1_members.remove},
    "/v1/shared-images/<member_id:str>": {"GET": v1_members.list_shared},
}
V2: dict[str, Methods] = {
    "/v2/images": {"GET": images.list_images, "POST": images.create},
    "/v2/images/<image_id:str>": {"GET": images.show, "PATCH": images.change, "DELETE": images.delete},
    "/v2/images/<image_id:str>/file": {"GET": data.download, "HEAD": data.download, "PUT": data.upload},
    "/v2/images/<image_id:str>/stage": {"PUT": imports.stage},
    "/v2/images/<image_id:str>/import": {"POST": imports.begin_import},
    "/v2/images/<image_id:str>/export": {"POST": imports.begin_export},
    "/v2/images/<image_id:str>/tasks": {"GET": tasks.of_image},
    "/v2/tasks": {"GET": tasks.list_tasks},
    "/v2/tasks/<task_id:str>": {"GET": tasks.show, "DELETE": tasks.cancel},
    "/v2/stores/<store:str>/<image_id:str>": {"DELETE": imports.remove_copy},
    "/v2/images/<image_id:str>/tags/<tag:str>": {"PUT": images.add_tag, "DELETE": images.remove_tag},
    "/v2/images/<image_id:str>/members": {"GET": members.list_members, "POST": members.add},
    "/v2/images/<image_id:str>/members/<member_id:str>": {
        "GET": members.show,
        "PUT": members.change,
        "DELETE": members.remove,
    },
    "/v2/images/<image_id:str>/actions/deactivate": {"POST": images.deactivate},
    "/v2/images/<image_id:str>/actions/reactivate": {"POST": images.reactivate},
    "/v2/images/<image_id:str>/transfers": {"GET": transfers.list_transfers, "POST": transfers.create},
    "/v2/images/<image_id:str>/transfers/<transfer_id:str>": {"GET": transfers.show, "DELETE": transfers.close},
    "/v2/schemas/<name:str>": {"GET": info.schema},
    "/v2/info/import": {"GET": info.import_methods},
    "/v2/info/stores": {"GET": info.stores},
    "/v2/info/stores/detail": {"GET": info.stores_in_detail},
}
# An image whose id is empty is none: a client that asks for one, or deletes it, must not have the list.
STRICT = frozenset({"/v2/images"})
# A detail of genuine servers: what this path's 405 says depends on the method.
_DETAIL = "/v1/images/detail"

_VERSIONED = re.compile(r"/v[0-9.]+(/|$)")
_LIBRARYS = re.compile(r"/(v[0-9.]+(/.*)?|versions/?)?")


def is_librarys(path: str) -> bool:
    """Whether a path is the library's to answer, with an error in its own form if need be."""
    return _LIBRARYS.fullmatch(path) is not None


def table(visor_prefix: str = "") -> dict[str, list[str]]:
    """Every path of the library's with its methods, for the document of all routes."""
    listed = {path: list(methods) for path, methods in {**V1, **V2}.items()}
    if visor_prefix:
        listed |= visor_routes.table(visor_prefix)
    return listed | {"/v1/": ["GET"]} | {path: list(READING) for path in ("/v1", "/v2", "/", "/versions")}


def add(app: App, library: Library) -> None:
    """Add all of them to a front end's application."""
    for path, methods in {**V1, **V2}.items():
        # All methods, so that a wrong one gets the library's answer; a partial, since Sanic marks its handlers.
        handler = partial(_answer, library, path, methods)
        strict = path in STRICT or None
        app.add_route(
            handler, path, methods=ALL_METHODS, stream=True, strict_slashes=strict, name=f"library:{path}"
        )  # fmt: skip
    # Which of them is meant says the slash at the end, and nothing else.
    index = partial(_answer, library, "/v1/", {"GET": v1_images.list_brief})
    app.add_route(index, "/v1/", methods=ALL_METHODS, stream=True, strict_slashes=True, name="library:/v1/")
    _add_discovery(app)
    if library.settings.visor_prefix:
        visor_routes.add(app, library)


def _add_discovery(app: App) -> None:
    async def root(request: Request) -> Sent:
        return await discovery.send_versions(request, 300)

    async def versions(request: Request) -> Sent:
        return await discovery.send_versions(request, 200)

    async def v1(request: Request) -> Sent:
        return await answers.send(request, 302, [("Location", "/v1/")])

    # Clients that were given an endpoint with a version look for the versions there.
    app.add_route(versions, "/v2", methods=["GET", "HEAD"], stream=True, name="library:/v2")
    app.add_route(v1, "/v1", methods=["GET", "HEAD"], stream=True, strict_slashes=True, name="library:/v1")
    for handler, path, name in ((root, "/", "root"), (versions, "/versions", "versions")):
        app.add_route(handler, path, methods=["GET", "HEAD"], stream=True, name=f"library:{name}")


async def stray(request: Request, status: int, message: str, headers: list[tuple[str, str]]) -> Sent:
    """What no route took, on a path of the library's: an unknown version, or an error in its form."""
    version = _VERSIONED.match(request.path)
    if status == 404 and (version is None or version[0].strip("/") not in ("v1", "v2")):
        return await discovery.send_versions(request, 300)
    return await answers.send_error(request, ApiError(status, message, headers))


async def _answer(library: Library, path: str, methods: Methods, request: Request, **segments: str) -> Sent:
    """Who asks, then the handler; what it raises in the form that the client understands."""
    try:
        caller = await library.authority.caller(request)
        handler = methods.get(request.method)
        if handler is None:
            raise ApiError(405, f"{request.method} is not possible here", [("Allow", _allow(path, methods, request))])
        if request.method not in READING:
            caller.check_writer()
        decoded = {name: _decode(segment) for name, segment in segments.items()}
        return await handler(Call(library, request, caller), **decoded)
    except (ClientGone, BodyBroken):
        raise
    except Exception as error:
        if isinstance(error, RegistryError):
            log.error("the catalogue cannot be asked", extra=facts(reason=str(error)))
        told = api_error(error)
        if told is None:
            log.exception("request to the library failed", exc_info=error)
            told = ApiError(500, "Internal error; the log has it")
        return await answers.send_error(request, told)


def _allow(path: str, methods: Methods, request: Request) -> str:
    if path == _DETAIL and request.method != "HEAD":
        return "GET, HEAD"
    order = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
    return ", ".join(method for method in order if method in methods)


def _decode(segment: str) -> str:
    """A segment of the path, decoded once. Raises ApiError 404 for what names nothing."""
    try:
        text = unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise ApiError(404, "The path is not UTF-8") from None
    if not text or "\0" in text:
        raise ApiError(404, "The path names nothing")
    return text
