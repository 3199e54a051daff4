"""`/v2/schemas` and `/v2/info`: what clients ask about the service."""

from __future__ import annotations

from mover.front.sanic_seam import Sent
from mover.library.call import Call
from mover.library.errors import ApiError
from mover.library.jobs.records import IMPORTS
from mover.library.seam import Store
from mover.library.v2.schema import SCHEMAS


async def schema(call: Call, name: str) -> Sent:
    """One JSON schema."""
    if name not in SCHEMAS:
        raise ApiError(404, f"There is no schema {name[:80]!r}")
    return await call.send_json(200, SCHEMAS[name])


async def import_methods(call: Call) -> Sent:
    """How images can be imported."""
    methods = {"description": "Import methods available.", "type": "array", "value": [str(one) for one in IMPORTS]}
    return await call.send_json(200, {"import-methods": methods})


async def stores(call: Call) -> Sent:
    """The stores that an image's data can be sent to."""
    found = await call.library.carrier.stores()
    return await call.send_json(200, {"stores": [_shown(store) for store in found]})


async def stores_in_detail(call: Call) -> Sent:
    """The same with what an admin may know. No store weighs more than another here: the default one is the first."""
    if not call.caller.is_admin:
        raise ApiError(403, "Only an admin is told of stores in detail")
    found = await call.library.carrier.stores()
    detailed = [
        _shown(store) | {"type": store.type, "weight": 0, "properties": dict(store.properties)} for store in found
    ]
    return await call.send_json(200, {"stores": detailed})


def _shown(store: Store) -> dict[str, object]:
    one: dict[str, object] = {"id": store.id}
    if store.description:
        one["description"] = store.description
    if store.default:
        one["default"] = "true"
    if store.read_only:
        one["read-only"] = "true"
    one["capabilities"] = list(store.capabilities)
    return one
