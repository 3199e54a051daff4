"""The document that `/openapi.json` serves: every route of the service, by hand; the library's from its own table.

tests/operation/test_openapi.py compares it with the router, and has schemathesis try the service against it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache

import msgspec

from mover.front import openapi_tickets
from mover.front.openapi_parts import (
    BINARY,
    DIGITS,
    FLAG,
    NUMBER,
    OF_AN_IMAGE,
    Json,
    answer,
    errors,
    header,
    of_json,
    query,
    schema,
)
from mover.version import version
from workers.lane.checksum_format import algorithms

# OpenAPI's paths, whose parameters Sanic writes as <image_id:str>.
_PARAMETER = re.compile(r"<(\w+)(?::\w+)?>")

SCHEMAS: Json = {
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {"type": "string", "description": "What is wrong, with the value and the limit."},
            "lost": {
                "type": "array",
                "description": "Ranges [offset, length] whose confirmed writes are gone: send them again.",
                "items": {"type": "array", "items": NUMBER, "minItems": 2, "maxItems": 2},
            },
        },
    },
    "Written": {
        "type": "object",
        "required": ["bytes_written", "flushed", "ok"],
        "properties": {"bytes_written": NUMBER, "flushed": {"type": "boolean"}, "ok": {"const": True}},
    },
    "Extent": {
        "type": "object",
        "required": ["start", "length", "zero"],
        "properties": {
            "start": NUMBER,
            "length": NUMBER,
            "zero": {"type": "boolean", "description": "It reads as zeros."},
            "hole": {"type": "boolean", "description": "The server says that it takes no space."},
            "dirty": {"type": "boolean", "description": "It has changed since the bitmap began to record."},
        },
    },
    "Allowed": {
        "type": "object",
        "required": ["features", "unix_socket"],
        "properties": {
            "features": {"type": "array", "items": {"enum": ["checksum", "extents", "flush", "zero"]}},
            "unix_socket": {"type": ["string", "null"]},
            "max_readers": NUMBER,
            "max_writers": NUMBER,
        },
    },
    "Checksum": {
        "type": "object",
        "required": ["algorithm", "block_size", "checksum"],
        "properties": {"algorithm": {"type": "string"}, "block_size": NUMBER, "checksum": {"type": "string"}},
    },
    "Patch": {
        "type": "object",
        "required": ["op"],
        "if": {"properties": {"op": {"const": "zero"}}},
        "then": {"required": ["size"]},
        "properties": {
            "op": {"enum": ["zero", "flush"]},
            "offset": NUMBER,
            "size": {**NUMBER, "description": "Bytes to zero; required for `zero`."},
            "flush": {"type": "boolean"},
        },
    },
}


IMAGE_ID = {
    "name": "image_id",
    "in": "path",
    "required": True,
    "description": "A ticket's id: one segment, at most 255 bytes of UTF-8.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
RANGE = header("Range", "^bytes=([0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})$", "One range.", "bytes=0-4095")
CONTENT_RANGE = header(
    "Content-Range", r"^bytes [0-9]{1,18}-([0-9]{1,18}|\*)/(\*|[0-9]{1,18})$", "Where the body goes.", "bytes 0-4095/*"
)
FLUSH = query("flush", FLAG, "Whether the answer waits until everything is durable.")
WRITTEN = {"200": of_json("Every byte is confirmed.", schema("Written"))}
PART = "The range `bytes a-b/size`."


def _reading() -> Json:
    return {
        "200": answer("The image.", BINARY),
        "206": answer("The range.", BINARY, Content_Range=PART),
        **errors(*OF_AN_IMAGE, 416),
    }


def _image() -> Json:
    body = {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
    patch = {"required": True, "content": {"application/json": {"schema": schema("Patch")}}}
    allowed = of_json("What the image and its ticket allow.", schema("Allowed"), Allow="The methods.")
    return {
        "parameters": [IMAGE_ID],
        "get": {"summary": "Read the image, or a range of it", "parameters": [RANGE], "responses": _reading()},
        "head": {"summary": "The headers of a GET", "parameters": [RANGE], "responses": _reading()},
        "put": {
            "summary": "Write a body, from the beginning or at a place",
            "parameters": [CONTENT_RANGE, FLUSH],
            "requestBody": body,
            "responses": {**WRITTEN, **errors(*OF_AN_IMAGE, 416, 501)},
        },
        "patch": {
            "summary": "Zero a range or flush; with Range and a body that is not JSON, write",
            "parameters": [FLUSH],
            "requestBody": patch,
            "responses": {**WRITTEN, **errors(*OF_AN_IMAGE, 415, 416, 501)},
        },
        "options": {"summary": "What the image allows", "responses": {"200": allowed, **errors(*OF_AN_IMAGE)}},
    }


def _parts_of_an_image() -> Json:
    extents: Json = {"type": "array", "items": schema("Extent")}
    lines = {"application/x-ndjson": {"schema": {"type": "string"}}}
    listed = answer("From the start to the end, without gaps.", {"application/json": {"schema": extents}, **lines})
    asked = [
        query("context", {"type": "string", "enum": ["zero", "dirty"]}, "The allocation, or what has changed."),
        query("start", DIGITS, "Of this part of the image only."),
        query("length", DIGITS, "Of this part of the image only."),
    ]
    listing = {"parameters": asked, "responses": {"200": listed, **errors(*OF_AN_IMAGE, 416)}}
    names: Json = {"type": "array", "items": {"type": "string"}}
    offered: Json = {"type": "object", "required": ["algorithms"], "properties": {"algorithms": names}}
    hashed = [
        query(
            "algorithm",
            {"type": "string", "enum": algorithms()},
            "One of those that are offered; blake2b if it is left out.",
        ),
        query(
            "block_size",
            {"type": "integer", "minimum": 1 << 20, "maximum": 1 << 24, "multipleOf": 4096},
            "Bytes, 1 to 16 MiB; 4 MiB if it is left out.",
        ),
    ]
    digest = of_json("The hash over the hashes of the image's blocks.", schema("Checksum"))
    listed_names = of_json("Their names.", offered)
    return {
        "/images/{image_id}/extents": {
            "parameters": [IMAGE_ID],
            "get": {"summary": "Which ranges are data, zeros, holes; which have changed", **listing},
            "head": {"summary": "The headers of a GET", **listing},
        },
        "/images/{image_id}/flush": {
            "parameters": [IMAGE_ID],
            "post": {
                "summary": "Make every confirmed write durable",
                "responses": {**WRITTEN, **errors(*OF_AN_IMAGE, 501)},
            },
        },
        "/images/{image_id}/checksum": {
            "parameters": [IMAGE_ID],
            "get": {
                "summary": "A checksum of the image, made where it is",
                "parameters": hashed,
                "responses": {"200": digest, **errors(*OF_AN_IMAGE)},
            },
        },
        "/images/{image_id}/checksum/algorithms": {
            "parameters": [IMAGE_ID],
            "get": {"summary": "What is offered", "responses": {"200": listed_names, **errors(*OF_AN_IMAGE)}},
        },
    }


def _service() -> Json:
    def told(key: str) -> Json:
        return {"type": "object", "required": [key], "properties": {key: {"type": "string"}}}

    rows: Json = {"type": "array", "items": {"type": "object"}}
    page = answer("Prometheus's text format.", {"text/plain": {"schema": {"type": "string"}}})
    here = " On the Unix socket only."
    found: dict[str, tuple[str, Json, tuple[int, ...]]] = {
        "/info": ("The version", of_json("It.", told("version")), ()),
        "/healthz": ("Whether the process answers", of_json("It does.", told("status")), ()),
        "/readyz": ("Whether every part does its work", of_json("It does.", told("status")), (503,)),
        "/metrics": ("Numbers for Prometheus. Over TCP by setting only", page, (404, 503)),
        "/workers": (f"The images' workers.{here}", of_json("One object each.", rows), (404, 503)),
        "/status": (f"The house on one page.{here}", of_json("It.", {"type": "object"}), (404, 503)),
        "/openapi.json": ("This document", of_json("OpenAPI 3.1.", {"type": "object"}), ()),
    }
    return {
        path: {method: {"summary": summary, "responses": {"200": good, **errors(*bad)}} for method in ("get", "head")}
        for path, (summary, good, bad) in found.items()
    }


def path_of(route: str) -> str:
    """Sanic's path as OpenAPI writes it: `/images/{image_id}`."""
    return "/" + _PARAMETER.sub(r"{\1}", route).strip("/")


def _library(routes: Mapping[str, Iterable[str]]) -> Json:
    """The library's paths and methods; what they take and answer is Glance's and VISOR's to say (docs/library.md)."""
    paths: Json = {}
    for route, methods in routes.items():
        names = _PARAMETER.findall(route)
        parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
        paths[route if route == "/v1/" else path_of(route)] = {
            "parameters": parameters,
            **{
                method.lower(): {
                    "summary": "The image library, as Glance or VISOR has it",
                    "responses": {"default": {"description": "docs/library.md says what."}},
                }
                for method in methods
            },
        }
    return paths


def document(library: Mapping[str, Iterable[str]] | None = None) -> Json:
    """All of it; `library` are the methods of its routes, where it is enabled."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Mover",
            "version": version(),
            "description": "Disk images over HTTP, and the service itself. docs/http-api.md has the prose.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/images/{image_id}": _image(),
            **_parts_of_an_image(),
            **_service(),
            **openapi_tickets.paths(),
            **_library(library or {}),
        },
        "components": {"schemas": {**SCHEMAS, **openapi_tickets.SCHEMAS}},
    }


@cache
def encoded(has_library: bool, visor_prefix: str = "") -> bytes:
    """The document as it is served."""
    if not has_library:
        return msgspec.json.encode(document())
    from mover.library.routes import table

    return msgspec.json.encode(document(table(visor_prefix)))
