"""`/v2/images`: create, list, show, patch, delete, tags and actions."""

from __future__ import annotations

import uuid
from typing import Any

from mover.front.sanic_seam import Sent
from mover.library import bridge, deletes
from mover.library.call import Call
from mover.library.callers import check_change, owner_of_new
from mover.library.checks import check_properties_count, check_property, is_uuid
from mover.library.errors import ApiError
from mover.library.jobs.records import IMPORTS
from mover.library.records import Change, ImageRecord, NewImage, Visibility
from mover.library.states import State
from mover.library.statuses import status_of
from mover.library.v2 import filters, patch, values, words

_QUEUED_ONLY = ("disk_format", "container_format")


async def find_to_change(call: Call, image_id: str) -> ImageRecord:
    """An image that the caller may change. Raises ApiError 403 and 404."""
    image = await call.image(image_id)
    check_change(call.caller, image, hides_shared=False)
    return image


async def list_images(call: Call) -> Sent:
    """A page of the images."""
    arguments = call.arguments()
    marker_id = filters.marker_of(arguments)
    marker = None if marker_id is None else await _marker(call, marker_id)
    query = filters.parse(arguments, call.caller, call.library.settings.page, marker)
    shown = await call.library.ask(lambda registry: registry.find(query))
    answer = {
        "images": [words.image(image) for image in shown],
        "schema": "/v2/schemas/images",
        **filters.links("/v2/images", arguments, shown, query.limit),
    }
    return await call.send_json(200, answer)


async def _marker(call: Call, image_id: str) -> ImageRecord:
    try:
        return await call.library.image(call.caller, image_id.lower())
    except ApiError:
        raise ApiError(400, f"Invalid marker {image_id}: there is no such image") from None


async def create(call: Call) -> Sent:
    """Make an image without data."""
    new = _new_image(call, await call.json())
    image = await call.library.ask(lambda registry: registry.create(new))
    stores = [store.id for store in await call.library.carrier.stores() if not store.read_only]
    headers = [
        ("Location", call.url(f"/v2/images/{image.id}")),
        # openstacksdk imports nothing unless the answer to the create says that it can.
        ("OpenStack-image-import-methods", ",".join(IMPORTS)),
    ]
    if stores:
        headers.append(("OpenStack-image-store-ids", ",".join(stores)))
    return await call.send_json(201, words.image(image), headers)


def _new_image(call: Call, body: Any) -> NewImage:
    if not isinstance(body, dict):
        raise ApiError(400, "The body must be a JSON object")
    limits = call.library.settings
    image_id = _id(body.pop("id", None))
    facts: dict[str, Any] = {}
    properties: dict[str, str | None] = {}
    tags = values.check_tags(body.pop("tags", []), limits.tags)
    for name, value in body.items():
        values.check_name(name)
        if name in words.WRITABLE:
            facts[words.column(name)] = values.check_value(name, value)
        else:
            properties[name] = check_property(name, value)
    check_properties_count(len(properties), limits.properties)
    owner = facts.pop("owner", None)
    _check_owner(call, owner)
    facts["owner"] = owner_of_new(call.caller, owner)
    visibility = facts.pop("visibility", Visibility.SHARED)
    return NewImage(id=image_id, visibility=visibility, facts=facts, properties=properties, tags=tags)


def _id(wanted: Any) -> str:
    if wanted is None:
        return str(uuid.uuid4())
    if not isinstance(wanted, str) or not is_uuid(wanted):
        raise ApiError(400, f"Invalid image id format: {str(wanted)[:80]!r}")
    return wanted.lower()


def _check_owner(call: Call, owner: str | None) -> None:
    if owner is not None and owner != call.caller.tenant and not call.caller.is_admin:
        raise ApiError(403, f"You are not permitted to create images owned by '{owner}'.")


async def show(call: Call, image_id: str) -> Sent:
    """One image."""
    return await call.send_json(200, words.image(await call.image(image_id)))


async def change(call: Call, image_id: str) -> Sent:
    """Patch one image."""
    media = call.content_type
    if media not in patch.MEDIA:
        accepted = ",".join(patch.MEDIA)
        raise ApiError(415, f"Content-Type must be one of {accepted}", [("Accept-Patch", accepted)])
    image = await find_to_change(call, image_id)
    steps = patch.parse(await call.json(), media)
    limits = call.library.settings

    def decide(now: ImageRecord) -> Change:
        made = patch.apply(now, steps, limits.properties, limits.tags)
        _check_change(call, now, made.facts)
        return made

    changed = await call.library.change(image, decide) if steps else image
    return await call.send_json(200, words.image(changed))


def _check_change(call: Call, now: ImageRecord, facts: dict[str, Any]) -> None:
    if "owner" in facts and facts["owner"] != now.owner and not call.caller.is_admin:
        raise ApiError(403, "Only an admin gives an image to another owner.")
    for name in _QUEUED_ONLY:
        if name in facts and facts[name] != getattr(now, name) and now.state is not State.QUEUED:
            raise ApiError(403, f"Attribute {name} can be only replaced for a queued image.")


async def delete(call: Call, image_id: str) -> Sent:
    """Delete one image."""
    image = await find_to_change(call, image_id)
    if image.protected:
        raise deletes.protected(image)
    await deletes.delete(call.library, image)
    return await call.send(204)


# -- tags ------------------------------------------------------------------------------------------------------


async def add_tag(call: Call, image_id: str, tag: str) -> Sent:
    """Give an image a tag; it is no error if it has it."""
    image = await find_to_change(call, image_id)

    def decide(now: ImageRecord) -> Change | None:
        if tag in now.tags:
            return None
        return Change(tags=values.check_tags([*now.tags, tag], call.library.settings.tags))

    await call.library.change(image, decide)
    return await call.send(204)


async def remove_tag(call: Call, image_id: str, tag: str) -> Sent:
    """Take a tag from an image."""
    image = await find_to_change(call, image_id)

    def decide(now: ImageRecord) -> Change:
        if tag not in now.tags:
            raise ApiError(404, f"Image {now.id} does not have the tag {tag[:80]!r}")
        return Change(tags=tuple(one for one in now.tags if one != tag))

    await call.library.change(image, decide)
    return await call.send(204)


# -- actions ---------------------------------------------------------------------------------------------------


async def deactivate(call: Call, image_id: str) -> Sent:
    """Let nobody but admins download it."""
    image = await _move(call, image_id, "deactivate", State.ACTIVE, State.DEACTIVATED)
    await bridge.end_downloads(call.library, image.id)
    return await call.send(204)


async def reactivate(call: Call, image_id: str) -> Sent:
    """Let it be downloaded again."""
    await _move(call, image_id, "reactivate", State.DEACTIVATED, State.ACTIVE)
    return await call.send(204)


async def _move(call: Call, image_id: str, action: str, before: State, after: State) -> ImageRecord:
    image = await find_to_change(call, image_id)
    moved = await call.library.ask(lambda registry: registry.move(image.id, frozenset({before}), after))
    if moved is None:
        now = await call.image(image.id)
        if now.state is not after:
            raise ApiError(403, f"Not allowed to {action} image in status '{status_of(now.state)}'")
    return image
