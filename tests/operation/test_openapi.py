"""`/openapi.json`: every route and no other, and the service keeps to what it says."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sanic import Sanic

from config.settings import FrontSettings, LibrarySettings
from mover.front import openapi
from mover.front.account import Account
from mover.front.app import create_app
from mover.front.visit import Door
from mover.library.library import Library
from mover.library.routes import table
from tests.harness.fixtures import Images, StartMover
from tests.harness.patterns import MIB
from tests.operation.fuzz import fuzz

# Of another socket, which Sanic does not serve.
ELSEWHERE = {"/tickets/{ticket_id}", "/tickets/"}
METHODS = ("get", "head", "put", "patch", "post", "delete", "options")


def documented(document: dict[str, Any]) -> set[tuple[str, str]]:
    """Its paths and methods."""
    return {(method.upper(), path) for path, item in document["paths"].items() for method in METHODS if method in item}


@pytest.mark.parametrize("has_library", [False, True])
def test_every_route_is_documented_and_none_invented(has_library: bool) -> None:
    """The router's paths and methods are the document's; the library's paths take all methods, to refuse them."""
    door = SimpleNamespace(link=None, settings=FrontSettings(), account=Account())
    settings = LibrarySettings()
    library = cast(Library, SimpleNamespace(settings=settings, authority=None)) if has_library else None
    app = create_app(cast(Door, door), True, library)
    try:
        groups = [group for kind in (app.router.static_routes, app.router.dynamic_routes) for group in kind.values()]
        routes = [route for group in groups for route in group.routes]
        # What takes all other paths under a prefix, to refuse them, is no route that anybody asks.
        routes = [route for route in routes if not route.name.startswith("mover.stray:")]
        found = {
            (method, openapi.path_of(route.path))
            for route in routes
            if not route.name.startswith("mover.library:")
            for method in route.methods
        }
        librarys = {openapi.path_of(route.path) for route in routes if route.name.startswith("mover.library:")}
    finally:
        Sanic.unregister_app(app)
    document = json.loads(openapi.encoded(has_library, settings.visor_prefix))
    of_library = {openapi.path_of(path) for path in table(settings.visor_prefix)} if has_library else set()
    told = {(method, path) for method, path in documented(document) if path not in ELSEWHERE}
    assert {(method, path) for method, path in told if openapi.path_of(path) not in of_library} == found
    assert librarys == of_library


def test_the_document_is_served(start_mover: StartMover) -> None:
    """As it is made, over TCP and the Unix socket."""
    mover = start_mover({})
    for unix in (False, True):
        answer = mover.ask("GET", "/openapi.json", unix=unix)
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert answer.json()["openapi"] == "3.1.0"
    mover.stop_clean()


@pytest.mark.nbd
@pytest.mark.slow
def test_schemathesis_finds_nothing(images: Images, start_mover: StartMover, tmp_path: Path) -> None:
    """Requests right and wrong, made from the document: every answer is one that it names, in the form that it says.

    Nothing fails inside, and nothing is left in flight.
    """
    server = images.qemu_nbd(images.pattern("disk", 1, MIB))
    mover = start_mover({"disk": server}, {"library": {"enabled": False}})
    document = mover.ask("GET", "/openapi.json").json()
    for path in ELSEWHERE:
        del document["paths"][path]
    # An image that is there: most of what a wrong id is answered with is known after the first.
    document["paths"]["/images/{image_id}"]["parameters"][0]["schema"] = {"enum": ["disk", "nobody"]}
    # Half a minute of requests.
    fuzz(tmp_path, document, mover.tcp[1], 25, "examples,coverage,fuzzing", "schemathesis.toml")
    mover.stop_clean()
