"""`/v2/images/{id}/members`: whom an image is shared with, and what they say to it."""

from __future__ import annotations

from typing import Any

from mover.front.sanic_seam import Sent
from mover.library.call import Call
from mover.library.callers import may_list_members
from mover.library.checks import TEXT, check_text
from mover.library.errors import ApiError
from mover.library.records import ImageRecord, Member, MemberStatus, Visibility
from mover.library.v2 import images, words


async def list_members(call: Call, image_id: str) -> Sent:
    """All members, to the owner; their own membership, to a member."""
    image = await call.image(image_id)
    _check_shared(image)
    found = await call.library.ask(lambda registry: registry.members(image.id))
    if not (call.caller.is_admin or call.caller.owns(image)):
        found = [one for one in found if one.member == call.caller.tenant]
    answer = {"members": [words.member(one) for one in found], "schema": "/v2/schemas/members"}
    return await call.send_json(200, answer)


async def show(call: Call, image_id: str, member_id: str) -> Sent:
    """One member, to the owner and to the member."""
    image, member = await _find(call, image_id, member_id)
    mine = await call.library.ask(lambda registry: registry.member(image.id, call.caller.tenant or ""))
    if not may_list_members(call.caller, image, mine if mine == member else None):
        raise _no_member(image_id, member_id)
    return await call.send_json(200, words.member(member))


async def add(call: Call, image_id: str) -> Sent:
    """Share the image with a tenant, who may accept or reject."""
    image = await images.find_to_change(call, image_id)
    wanted = _field(await call.json(), "member")
    _check_shared(image)
    name = check_text("member", wanted, TEXT)
    if not name:
        raise ApiError(400, "The member's id is empty")
    limit = call.library.settings.members
    member = await call.library.ask(
        lambda registry: registry.add_member(image.id, name, can_share=False, status=MemberStatus.PENDING, limit=limit)
    )
    return await call.send_json(200, words.member(member))


async def change(call: Call, image_id: str, member_id: str) -> Sent:
    """What the member says: accepted or rejected. The owner cannot say it for them."""
    status = _field(await call.json(), "status")
    if status not in list(MemberStatus):
        raise ApiError(400, f"Member status {str(status)[:80]!r} is not one of {', '.join(MemberStatus)}")
    image, _ = await _find(call, image_id, member_id)
    if not call.caller.is_admin and call.caller.tenant != member_id:
        raise ApiError(403, f"Only {member_id} sets the status of its membership.")
    changed = await call.library.ask(
        lambda registry: registry.change_member(image.id, member_id, status=MemberStatus(status))
    )
    if changed is None:
        raise _no_member(image_id, member_id)
    return await call.send_json(200, words.member(changed))


async def remove(call: Call, image_id: str, member_id: str) -> Sent:
    """Share the image with the tenant no more."""
    image = await images.find_to_change(call, image_id)
    if not await call.library.ask(lambda registry: registry.remove_member(image.id, member_id)):
        raise _no_member(image_id, member_id)
    return await call.send(204)


async def _find(call: Call, image_id: str, member_id: str) -> tuple[ImageRecord, Member]:
    image = await call.image(image_id)
    member = await call.library.ask(lambda registry: registry.member(image.id, member_id))
    if member is None:
        raise _no_member(image_id, member_id)
    return image, member


def _check_shared(image: ImageRecord) -> None:
    if image.visibility is not Visibility.SHARED:
        raise ApiError(403, "Only shared images have members.")


def _no_member(image_id: str, member_id: str) -> ApiError:
    return ApiError(404, f"{member_id[:80]} is not a member of image {image_id}")


def _field(body: Any, name: str) -> Any:
    if not isinstance(body, dict) or name not in body:
        raise ApiError(400, f"The body must be a JSON object with '{name}'")
    return body[name]
