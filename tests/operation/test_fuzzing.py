"""schemathesis against the sockets and routes that test_openapi.py leaves out: the ticket service, the library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.client.proxy import Proxy
from tests.harness.fixtures import Images, StartMover
from tests.harness.patterns import MIB
from tests.library.service import NOBODYS_ID, PATCH_21, Service
from tests.operation.fuzz import fuzz
from tests.tickets.vdsm import Vdsm, nbd_url

Json = dict[str, Any]
TEXT = {"type": "string"}
NUMBER = {"type": "integer"}
OCTETS: Json = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
FIELDS: Json = {
    "name": TEXT,
    "disk_format": {"enum": ["raw", "qcow2", "iso"]},
    "container_format": {"enum": ["bare", "ovf"]},
    "visibility": {"enum": ["public", "private", "shared", "community"]},
    "min_disk": NUMBER,
    "min_ram": NUMBER,
    "protected": {"type": "boolean"},
    "tags": {"type": "array", "items": TEXT},
}
IMAGE = {"type": "object", "properties": FIELDS, "additionalProperties": TEXT}
STEP = {
    "type": "object",
    "required": ["op", "path"],
    "properties": {
        "op": {"enum": ["add", "replace", "remove"]},
        "path": {"enum": [f"/{name}" for name in (*FIELDS, "id", "status", "a~1b", "locations")]},
        "value": {},
    },
}
# What the library's routes take; the document leaves it to Glance's and VISOR's.
QUERY = (
    "limit", "marker", "sort", "sort_key", "sort_dir", "name", "size_min", "size_max", "changes-since", "created_at",
    "visibility", "member_status", "status", "tag", "os_hidden", "property-a", "detail", "access",
)  # fmt: skip
META = (
    "name",
    "architecture",
    "access",
    "store",
    "location",
    "kernel",
    "id",
    "size",
    "checksum",
    "disk_format",
    "container_format",
    "min_disk",
    "protected",
    "property-a",
)
BODIES: dict[str, Json] = {
    "POST /v2/images": {"application/json": {"schema": IMAGE}},
    "PATCH /v2/images/{image_id}": {PATCH_21: {"schema": {"type": "array", "items": STEP}}},
    "PUT /v2/images/{image_id}/file": OCTETS,
    "POST /v2/images/{image_id}/members": {"application/json": {"schema": {"properties": {"member": TEXT}}}},
    "PUT /v2/images/{image_id}/members/{member_id}": {
        "application/json": {"schema": {"properties": {"status": {"enum": ["pending", "accepted", "rejected"]}}}}
    },
    "POST /v1/images": OCTETS,
    "PUT /v1/images/{image_id}": OCTETS,
    "PUT /v1/images/{image_id}/members": {
        "application/json": {"schema": {"properties": {"memberships": {"type": "array", "items": {}}}}}
    },
    "PUT /v1/images/{image_id}/members/{member_id}": {
        "application/json": {"schema": {"properties": {"member": {"properties": {"can_share": {}}}}}}
    },
    "POST /visor/images": {"application/json": {"schema": {"properties": {"image": IMAGE}}}},
    "PUT /visor/images/{image_id}": {"application/json": {"schema": {"properties": {"image": IMAGE}}}},
}


@pytest.mark.nbd
@pytest.mark.slow
def test_schemathesis_finds_nothing_in_the_ticket_service(
    images: Images, start_mover: StartMover, tmp_path: Path, room: Path
) -> None:
    """Every answer of the ticket socket is one that the document names, and nothing fails inside."""
    server = images.qemu_nbd(images.pattern("disk", 1, MIB))
    vdsm = Vdsm(room / "tickets.sock")
    mover = start_mover({}, {"serve": {"ticket_socket": str(vdsm.path)}, "library": {"enabled": False}})
    document = mover.ask("GET", "/openapi.json").json()
    document["paths"] = {path: item for path, item in document["paths"].items() if path.startswith("/tickets/")}
    for item in document["paths"].values():
        del item["servers"]
    # That the id is the one in the path, and which URLs are allowed, no schema can say.
    document["paths"]["/tickets/{ticket_id}"]["parameters"][0]["schema"] = {"enum": ["known"]}
    properties = document["components"]["schemas"]["Ticket"]["properties"]
    properties |= {"uuid": {"enum": ["known"]}, "url": {"enum": [nbd_url(server), "file:///etc/passwd"]}}
    vdsm.install(nbd_url(server), MIB, "read", ticket_id="known")
    with Proxy(vdsm.path) as relay:
        fuzz(tmp_path, document, relay.port, 10, "examples,coverage,fuzzing", "schemathesis.toml")
    mover.stop_clean()


@pytest.mark.slow
def test_schemathesis_finds_nothing_in_the_library(start_mover: StartMover, tmp_path: Path) -> None:
    """Whatever is sent to the routes of Glance's and VISOR's APIs, no answer is a 500, and nothing is in flight."""
    mover = start_mover({})
    service = Service(mover)
    ids = [service.active(b"data" * 1000, protected=True)["id"], service.create()["id"], NOBODYS_ID]
    document = library_document(mover.ask("GET", "/openapi.json").json(), ids)
    fuzz(tmp_path, document, mover.tcp[1], 10, "fuzzing", "schemathesis-library.toml")
    mover.stop_clean()


def library_document(document: Json, ids: list[str]) -> Json:
    """The library's routes, with what they take; of images that are there and one that is not."""
    paths: Json = {}
    for path, item in document["paths"].items():
        if not path.startswith(("/v1", "/v2", "/visor")) or path == "/visor/all":
            continue
        paths[path] = item
        for parameter in item["parameters"]:
            if parameter["name"] == "image_id":
                parameter["schema"] = {"enum": ids}
        for method in ("get", "post", "put", "patch"):
            if method in item:
                item[method] |= takes(method.upper(), path)
    return {**document, "paths": paths}


def takes(method: str, path: str) -> Json:
    """Query, headers and body of an operation."""
    taken: Json = {}
    if method == "GET":
        taken["parameters"] = [{"name": name, "in": "query", "schema": {}} for name in QUERY]
    elif path.startswith(("/v1/images", "/visor/images")):
        names = [f"x-image-meta-{name}" for name in META]
        taken["parameters"] = [{"name": name, "in": "header", "schema": TEXT} for name in names]
    body = BODIES.get(f"{method} {path}")
    if body is not None:
        taken["requestBody"] = {"content": body}
    return taken
