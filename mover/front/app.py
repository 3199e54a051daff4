"""The front end's routes: where a request comes in."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from sanic import Request, Sanic
from sanic.exceptions import MethodNotAllowed, PayloadTooLarge, SanicException

from config.settings import FrontSettings
from mover.front import openapi, sanic_seam
from mover.front.answers import Answered, break_off, send_error, send_json
from mover.front.checksums import Checksums
from mover.front.errors import BodyBroken, ClientGone, RequestError, lane_lost
from mover.front.heads import large_heads
from mover.front.images import Images
from mover.front.link import Link
from mover.front.listing import Listing
from mover.front.patches import Patches
from mover.front.sanic_seam import Sent
from mover.front.visit import Door
from mover.library import routes as library_routes
from mover.library.library import Library
from mover.version import version
from workers.lane.lane_states import LaneLost

log = logging.getLogger(__name__)

App = Sanic[Any, Any]

# Prometheus's text format, as prometheus_client writes it (mover/serve/metrics.py).
METRICS = "text/plain; version=1.0.0; charset=utf-8"
METHODS = ("GET", "HEAD", "PUT", "PATCH", "POST", "OPTIONS")


def create_app(door: Door, metrics_on_tcp: bool, library: Library | None = None) -> App:
    """The application of one front end; without a library, its paths are unknown."""
    app: App = Sanic("mover", request_class=sanic_seam.request_class(door.account), configure_logging=False)
    sanic_seam.configure(app)
    retune(app, door.settings)
    _add_images(app, door)
    _add_service(app, door.link, metrics_on_tcp, library)
    if library is not None:
        library_routes.add(app, library)
        prefixes = (*library_routes.PREFIXES, library.settings.visor_prefix)
        app.config.LARGE_HEADS = large_heads(prefixes, library.settings.head_bytes)
    _add_errors(app, has_library=library is not None)
    return app


def retune(app: App, settings: FrontSettings) -> None:
    """Tell Sanic of the settings in force: for the seam, which has no other way to them, and for new connections."""
    sanic_seam.set_patience(app, settings.head_s, settings.keep_alive_s)
    app.config.PROGRESS_S = settings.progress_s


def _add_images(app: App, door: Door) -> None:
    images, patches, checksums = Images(door), Patches(door), Checksums(door)
    one = "/images/<image_id:str>"
    routes: list[tuple[str, str, list[str], Callable[..., Any]]] = [
        ("get", one, ["GET", "HEAD"], images.get),
        ("put", one, ["PUT"], images.put),
        ("patch", one, ["PATCH"], patches.patch),
        ("options", one, ["OPTIONS"], images.options),
        ("extents", f"{one}/extents", ["GET", "HEAD"], Listing(door).get),
        ("flush", f"{one}/flush", ["POST"], patches.post_flush),
        ("checksum", f"{one}/checksum", ["GET"], checksums.get),
        ("algorithms", f"{one}/checksum/algorithms", ["GET"], checksums.algorithms),
    ]
    for name, path, methods, handler in routes:
        # Sanic marks its handlers; a bound method cannot be marked, a partial can.
        app.add_route(partial(handler), path, methods=methods, stream=True, name=name)


def _add_service(app: App, link: Link, metrics_on_tcp: bool, library: Library | None) -> None:
    async def info(request: Request) -> Sent:
        return await send_json(request, 200, {"version": version()}, [])

    async def healthz(request: Request) -> Sent:
        return await send_json(request, 200, {"status": "ok"}, [])

    async def readyz(request: Request) -> Sent:
        if not link.supervised:
            raise RequestError(503, "the supervisor is gone")
        faults = msgspec.json.decode(await link.questions.ask("ready"), type=list[str])
        if faults:
            raise RequestError(503, f"not ready: {'; '.join(faults)}")
        return await send_json(request, 200, {"status": "ready"}, [])

    async def workers(request: Request) -> Sent:
        if not sanic_seam.over_unix(request):
            raise RequestError(404, "not found; /workers is served on the Unix socket only")
        return await _send(request, "application/json", await link.questions.ask("workers"))

    async def status(request: Request) -> Sent:
        if not sanic_seam.over_unix(request):
            raise RequestError(404, "not found; /status is served on the Unix socket only")
        return await _send(request, "application/json", await link.questions.ask("status"))

    async def metrics(request: Request) -> Sent:
        if not (metrics_on_tcp or sanic_seam.over_unix(request)):
            raise RequestError(404, "not found; /metrics is served on the Unix socket only (serve.metrics)")
        return await _send(request, METRICS, await link.questions.ask("metrics"))

    visor_prefix = "" if library is None else library.settings.visor_prefix

    async def document(request: Request) -> Sent:
        return await _send(request, "application/json", openapi.encoded(library is not None, visor_prefix))

    service = {
        "/info": info,
        "/healthz": healthz,
        "/readyz": readyz,
        "/workers": workers,
        "/metrics": metrics,
        "/status": status,
        "/openapi.json": document,
    }
    for path, handler in service.items():
        app.add_route(handler, path, methods=["GET", "HEAD"], stream=True, name=handler.__name__)


async def _send(request: Request, kind: str, body: bytes) -> Sent:
    headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
    return await sanic_seam.reply(request, 200, headers, body)


def _allow(request: Request, error: SanicException) -> list[tuple[str, str]]:
    """The methods of a path, which Sanic knows for paths without parameters only."""
    if not isinstance(error, MethodNotAllowed):
        return []
    return [("Allow", ", ".join(method for method in METHODS if _has_route(request, method)))]


def _has_route(request: Request, method: str) -> bool:
    try:
        request.app.router.get(request.path, method, None)
    except SanicException:
        return False
    return True


def _add_errors(app: App, has_library: bool) -> None:
    async def refused(request: Request, error: RequestError) -> Sent:
        return await send_error(request, error)

    async def lost(request: Request, error: LaneLost) -> Sent:
        return await send_error(request, lane_lost(error))

    async def broken(request: Request, error: BodyBroken | ClientGone) -> Sent:
        return await break_off(request, error)

    async def answered(request: Request, error: Answered) -> Sent:
        return Sent(500)

    async def sanic(request: Request, error: SanicException) -> Sent:
        status = error.status_code
        if isinstance(error, PayloadTooLarge) and not sanic_seam.head_was_read(request):
            status = 431
        if has_library and library_routes.is_librarys(request.path):
            return await library_routes.stray(request, status, str(error) or "bad request", _allow(request, error))
        return await send_error(request, RequestError(status, str(error) or "bad request", _allow(request, error)))

    async def bug(request: Request, error: Exception) -> Sent:
        log.exception("request failed", exc_info=error)
        return await send_error(request, RequestError(500, "internal error; the log has it", fault="bug"))

    app.exception(RequestError)(refused)
    app.exception(LaneLost)(lost)
    app.exception(BodyBroken, ClientGone)(broken)
    app.exception(Answered)(answered)
    app.exception(SanicException)(sanic)
    app.exception(Exception)(bug)
