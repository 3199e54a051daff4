"""`/` and `/versions`: which APIs there are; clients begin here."""

from __future__ import annotations

from sanic import Request

from mover.front.sanic_seam import Sent
from mover.library import answers
from mover.library.call import base_url

# The newest first. 2.13 is the last that asks for nothing which this library does not have.
VERSIONS = (
    ("v2.13", "CURRENT", "v2"),
    *((f"v2.{minor}", "SUPPORTED", "v2") for minor in (12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)),
    ("v1.1", "DEPRECATED", "v1"),
    ("v1.0", "DEPRECATED", "v1"),
)


async def send_versions(request: Request, status: int) -> Sent:
    """The versions: 300 where a client did not choose one, 200 where it asked for them."""
    base = base_url(request)
    versions = [
        {"id": name, "status": standing, "links": [{"rel": "self", "href": f"{base}/{path}/"}]}
        for name, standing, path in VERSIONS
    ]
    return await answers.send_json(request, status, {"versions": versions})
