"""`/v1/images/{id}/members` and `/v1/shared-images`: in v1, who is made a member is one at once."""

from __future__ import annotations

from typing import Any

from mover.front.sanic_seam import Sent
from mover.library.call import Call
from mover.library.callers import may_list_members, may_share
from mover.library.checks import TEXT, check_text, is_uuid
from mover.library.errors import ApiError, no_image
from mover.library.records import ImageRecord, MemberStatus
from mover.library.registry.errors import MemberTaken
from mover.library.v1 import words


async def list_members(call: Call, image_id: str) -> Sent:
    """Whom the image is shared with."""
    image, member = await _find(call, image_id)
    if not may_list_members(call.caller, image, member):
        raise no_image(image_id)
    found = await call.library.ask(lambda registry: registry.members(image.id))
    return await call.send_json(200, {"members": [words.member(one) for one in found]})


async def replace(call: Call, image_id: str) -> Sent:
    """Share it with these tenants and no others."""
    image = await _find_to_share(call, image_id)
    wanted = _memberships(await call.json())
    limit = call.library.settings.members
    await call.library.ask(lambda registry: registry.replace_members(image.id, wanted, limit))
    return await call.send(204)


async def add(call: Call, image_id: str, member_id: str) -> Sent:
    """Share it with one tenant, or change whether that one may share it on."""
    image = await _find_to_share(call, image_id)
    name = check_text("member", member_id, TEXT)
    can_share = _can_share(await call.json()) if call.body_bytes != 0 else None
    limit = call.library.settings.members
    try:
        await call.library.ask(
            lambda registry: registry.add_member(
                image.id, name, can_share=bool(can_share), status=MemberStatus.ACCEPTED, limit=limit
            )
        )
    except MemberTaken:
        facts: dict[str, Any] = {} if can_share is None else {"can_share": can_share}
        await call.library.ask(
            lambda registry: registry.change_member(image.id, name, status=MemberStatus.ACCEPTED, **facts)
        )
    return await call.send(204)


async def remove(call: Call, image_id: str, member_id: str) -> Sent:
    """Share it with a tenant no more."""
    image = await _find_to_share(call, image_id)
    if not await call.library.ask(lambda registry: registry.remove_member(image.id, member_id)):
        raise ApiError(404, f"{member_id[:80]} is not a member of image {image_id}")
    return await call.send(204)


async def list_shared(call: Call, member_id: str) -> Sent:
    """What is shared with a tenant: all of it for the tenant and for admins, else the caller's own images."""
    found = await call.library.ask(lambda registry: registry.shared_with(member_id))
    if not call.caller.is_admin and call.caller.tenant != member_id:
        owned = await call.library.ask(lambda registry: [registry.get(one.image_id) for one in found])
        mine = {image.id for image in owned if image is not None and call.caller.owns(image)}
        found = [one for one in found if one.image_id in mine]
    return await call.send_json(200, {"shared_images": [words.shared_image(one) for one in found]})


async def _find(call: Call, image_id: str) -> Any:
    if not is_uuid(image_id):
        raise no_image(image_id[:80])
    return await call.library.image_and_membership(call.caller, image_id.lower())


async def _find_to_share(call: Call, image_id: str) -> ImageRecord:
    """An image that the caller may share. Whoever may not, is told that there is none: 404."""
    image: ImageRecord
    image, member = await _find(call, image_id)
    if call.caller.tenant is None:
        raise ApiError(401, "No authenticated user")
    if image.deleted_at_us is not None or not may_share(call.caller, image, member):
        raise no_image(image_id)
    return image


def _memberships(body: Any) -> dict[str, bool | None]:
    entries = body.get("memberships") if isinstance(body, dict) else None
    if not isinstance(entries, list):
        raise ApiError(400, "The body must be {'memberships': [{'member_id': …, 'can_share': …}, …]}")
    wanted: dict[str, bool | None] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("member_id"), str) or not entry["member_id"]:
            raise ApiError(400, "Each of the memberships must have a member_id")
        wanted[check_text("member_id", entry["member_id"], TEXT)] = _flag(entry.get("can_share"))
    return wanted


def _can_share(body: Any) -> bool | None:
    member = body.get("member") if isinstance(body, dict) else None
    if not isinstance(member, dict):
        raise ApiError(400, "The body must be {'member': {'can_share': …}}")
    return _flag(member.get("can_share"))


def _flag(value: Any) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise ApiError(400, f"can_share is {str(value)[:80]!r}: it must be true or false")
    return value
