"""`/v2/schemas` and `/v2/info`: what clients ask about the service."""

from __future__ import annotations

from mover.front.sanic_seam import Sent
from mover.library.call import Call
from mover.library.errors import ApiError
from mover.library.v2.imports import METHODS
from mover.library.v2.schema import SCHEMAS


async def schema(call: Call, name: str) -> Sent:
    """One JSON schema."""
    if name not in SCHEMAS:
        raise ApiError(404, f"There is no schema {name[:80]!r}")
    return await call.send_json(200, SCHEMAS[name])


async def import_methods(call: Call) -> Sent:
    """How images can be imported."""
    methods = {"description": "Import methods available.", "type": "array", "value": [str(one) for one in METHODS]}
    return await call.send_json(200, {"import-methods": methods})


async def stores(call: Call) -> Sent:
    """The stores that an image's data can be sent to."""
    found = await call.library.carrier.stores()
    shown = []
    for store in found:
        one: dict[str, object] = {"id": store.id}
        if store.description:
            one["description"] = store.description
        if store.default:
            one["default"] = "true"
        if store.read_only:
            one["read-only"] = "true"
        shown.append(one)
    return await call.send_json(200, {"stores": shown})
