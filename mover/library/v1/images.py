"""`/v1/images`: create, list, look at, read, update, delete."""

from __future__ import annotations

import uuid
from typing import Any

from mover.front.sanic_seam import Sent
from mover.library import answers, deletes, reading, references, uploads
from mover.library.call import Call
from mover.library.callers import check_change, owner_of_new
from mover.library.checks import check_properties_count, is_uuid
from mover.library.errors import ApiError, no_image
from mover.library.formats import check_complete, check_formats
from mover.library.jobs import beginning, copying
from mover.library.jobs.records import JobInput, JobKind
from mover.library.records import Change, ImageRecord, NewImage, Visibility
from mover.library.seam import Incoming, Kept, Span
from mover.library.states import READABLE, State
from mover.library.statuses import status_of
from mover.library.v1 import filters, headers, words
from mover.library.v1.headers import Meta

_QUEUED = frozenset({State.QUEUED})
# Of an image that has its data, these are what the data are.
_OF_DATA = ("size", "checksum")


async def find(call: Call, image_id: str) -> ImageRecord:
    """An image that is there for the caller; for an admin, a deleted one, too. Raises ApiError 404."""
    if not is_uuid(image_id):
        raise no_image(image_id[:80])
    return await call.library.image(call.caller, image_id.lower())


# -- lists -----------------------------------------------------------------------------------------------------


async def list_brief(call: Call) -> Sent:
    """A page of the images, six fields of each."""
    return await call.send_json(200, {"images": [words.brief(image) for image in await _page(call)]})


async def list_detail(call: Call) -> Sent:
    """A page of the images, with all there is to know."""
    return await call.send_json(200, {"images": [words.detail(image) for image in await _page(call)]})


async def _page(call: Call) -> list[ImageRecord]:
    arguments = call.arguments()
    marker_id = filters.marker_of(arguments)
    marker = None if marker_id is None else await _marker(call, marker_id)
    query = filters.parse(arguments, call.caller, call.library.settings.page, marker)
    return await call.library.ask(lambda registry: registry.find(query))


async def _marker(call: Call, image_id: str) -> ImageRecord:
    try:
        return await find(call, image_id)
    except ApiError:
        raise ApiError(400, "Invalid marker. Image could not be found.") from None


# -- one image -------------------------------------------------------------------------------------------------


async def head(call: Call, image_id: str) -> Sent:
    """The metadata, in headers. Not as JSON: clients would parse the body that there is not."""
    image = await find(call, image_id)
    return await call.send(200, [*words.headers(image), answers.HTML])


async def read(call: Call, image_id: str) -> Sent:
    """The data, whole: v1 knows no ranges."""
    image = await find(call, image_id)
    if image.state is State.DEACTIVATED:
        raise ApiError(403, f"Image {image.id} is deactivated")
    if image.state not in READABLE or image.size_bytes is None:
        raise ApiError(404, f"Image {image.id} is not active")
    size = image.size_bytes
    sent = [*words.headers(image), answers.OCTETS, ("Content-Length", str(size))]
    if image.location is None or size == 0:
        return await answers.send_head(call.request, 200, sent)
    return await reading.send(call, image, Span(0, size), 200, [answers.request_id_header(call.request), *sent])


async def delete(call: Call, image_id: str) -> Sent:
    """Delete it."""
    image = await find(call, image_id)
    if image.state is State.DELETED:
        raise ApiError(404, f"Image {image.id} not found.")
    if image.state is State.PENDING_DELETE:
        raise ApiError(403, f"Forbidden to delete a pending_delete image {image.id}")
    check_change(call.caller, image, hides_shared=True)
    if image.protected:
        raise deletes.protected(image)
    await deletes.delete(call.library, image)
    return await call.send(200, [answers.HTML])


# -- create and update -----------------------------------------------------------------------------------------


async def create(call: Call) -> Sent:
    """Make an image, with its data if there is a body."""
    meta = headers.parse(call.request.headers.items())
    has_body = call.body_bytes != 0
    _check_sources(call, meta, has_body)
    new = _new_image(call, meta)
    is_empty = meta.size_bytes == 0 and not has_body and not meta.sources
    if has_body or is_empty or meta.sources:
        check_complete(new.facts.get("disk_format"), new.facts.get("container_format"))
        _check_size(call, meta)
    if meta.copy_from is not None:
        await copying.store_of(call, meta.store)
    referred = await references.look(call.library, meta.location, meta.size_bytes, meta.store)
    image = await call.library.ask(lambda registry: registry.create(new))
    if referred is not None:
        image = await references.take(call.library, image, referred, _QUEUED, 412)
    elif has_body:
        image = await _receive(call, image, meta)
    elif is_empty:
        image = await _activate_empty(call, image)
    elif meta.copy_from is not None:
        await _copy_from(call, image, meta)
    answer = {"image": words.detail(image)}
    return await call.send_json(201, answer, [("Location", call.url(f"/v1/images/{image.id}")), *words.etag(image)])


def _new_image(call: Call, meta: Meta) -> NewImage:
    facts = dict(meta.facts)
    facts["owner"] = owner_of_new(call.caller, facts.get("owner"))
    disk, container = check_formats(facts.get("disk_format"), facts.get("container_format"))
    # Size and checksum of a reservation are what the data must have when they come.
    facts |= {"disk_format": disk, "container_format": container, "size_bytes": meta.size_bytes, "md5": meta.md5}
    check_properties_count(len(meta.properties), call.library.settings.properties)
    return NewImage(
        id=meta.id or str(uuid.uuid4()),
        visibility=Visibility.PUBLIC if meta.is_public else Visibility.SHARED,
        facts=facts,
        properties=meta.properties,
    )


def _check_sources(call: Call, meta: Meta, has_body: bool) -> None:
    if len(meta.sources) + has_body > 1:
        raise ApiError(400, "It's invalid to provide multiple image sources.")
    if meta.copy_from is not None:
        copying.check_url(call, meta.copy_from)


def _check_size(call: Call, meta: Meta) -> None:
    length, limit = call.body_bytes, call.library.settings.image_size_limit_bytes
    largest = max(length or 0, meta.size_bytes or 0)
    if largest > limit:
        raise ApiError(400, f"An image of {largest} bytes is larger than the limit of {limit}")


async def update(call: Call, image_id: str) -> Sent:
    """Change the metadata, and take the data if there is a body."""
    meta = headers.parse(call.request.headers.items())
    image = await find(call, image_id)
    if image.deleted_at_us is not None:
        raise ApiError(403, f"Forbidden to update image {image.id}, which is {status_of(image.state)}")
    check_change(call.caller, image, hides_shared=True)
    has_body = call.body_bytes != 0
    _check_update(call, image, meta, has_body)
    purges = not has_body and headers.to_bool(call.header(headers.PURGE) or "true")

    def decide(now: ImageRecord) -> Change:
        return _change(call, now, meta, purges, has_body or meta.location is not None)

    is_empty = meta.size_bytes == 0 and not has_body and not meta.sources and image.state is State.QUEUED
    if has_body:
        _check_size(call, meta)
    if meta.copy_from is not None:
        await copying.store_of(call, meta.store)
    size_bytes = image.size_bytes if meta.size_bytes is None else meta.size_bytes
    referred = await references.look(call.library, meta.location, size_bytes, meta.store)
    image = await call.library.change(image, decide)
    if referred is not None:
        image = await references.take(call.library, image, referred, _QUEUED, 412)
    elif has_body:
        image = await _receive(call, image, meta)
    elif is_empty and image.disk_format and image.container_format:
        image = await _activate_empty(call, image)
    elif meta.copy_from is not None:
        check_complete(image.disk_format, image.container_format)
        await _copy_from(call, image, meta)
    return await call.send_json(200, {"image": words.detail(image)}, words.etag(image))


def _check_update(call: Call, image: ImageRecord, meta: Meta, has_body: bool) -> None:
    shown = words.fields(image)
    given = {"size": meta.size_bytes, "checksum": meta.md5}
    if image.state in READABLE and not call.caller.is_admin:
        for name in _OF_DATA:
            if given[name] is not None and given[name] != shown[name]:
                raise ApiError(403, f"Forbidden to modify '{name}' of {shown['status']} image.")
    for name, value in (("status", meta.status), ("id", meta.id)):
        if value is not None and value != shown[name]:
            raise ApiError(403, f"Forbidden to modify '{name}' of image.")
    _check_sources(call, meta, has_body)
    if meta.location is not None and image.state is not State.QUEUED:
        raise ApiError(400, f"Cannot give a location to image {image.id}, which is {status_of(image.state)}")
    if meta.copy_from is not None and image.state is not State.QUEUED:
        raise ApiError(400, "Cannot copy to an unqueued image")
    if has_body and image.state is not State.QUEUED:
        raise ApiError(409, "Cannot upload to an unqueued image")


def _change(call: Call, now: ImageRecord, meta: Meta, purges: bool, has_data: bool) -> Change:
    facts: dict[str, Any] = dict(meta.facts)
    if not call.caller.is_admin:
        facts.pop("owner", None)
    if meta.is_public is not None and meta.is_public != (now.visibility is Visibility.PUBLIC):
        facts["visibility"] = Visibility.PUBLIC if meta.is_public else Visibility.SHARED
    if now.state is State.QUEUED:
        expected = {"size_bytes": meta.size_bytes, "md5": meta.md5}
        facts |= {name: value for name, value in expected.items() if value is not None}
    if "disk_format" in facts or "container_format" in facts or has_data:
        disk = facts.get("disk_format", now.disk_format)
        container = facts.get("container_format", now.container_format)
        facts["disk_format"], facts["container_format"] = check_formats(disk, container)
        if has_data:
            check_complete(facts["disk_format"], facts["container_format"])
    properties = dict(meta.properties) if purges else {**now.properties, **meta.properties}
    check_properties_count(len(properties), call.library.settings.properties)
    return Change(facts=facts, properties=properties if properties != now.properties else None)


# -- data ------------------------------------------------------------------------------------------------------


async def _receive(call: Call, image: ImageRecord, meta: Meta) -> ImageRecord:
    """Take the body as the data; whatever goes wrong, the image is killed."""
    try:
        call.check_octets(400)
    except ApiError:
        await call.library.ask(lambda registry: registry.move(image.id, _QUEUED, State.FAILED))
        raise
    incoming = Incoming(image, length=call.body_bytes, size_bytes=image.size_bytes, md5=image.md5, store=meta.store)
    received = await uploads.receive(call.library, call.request, incoming, State.FAILED, 412)
    assert not isinstance(received, Kept), "v1 does not resume"
    return received


async def _copy_from(call: Call, image: ImageRecord, meta: Meta) -> None:
    """Have a job copy what a URL has; the answer does not wait for it, and the image is killed if it fails."""
    store = await copying.store_of(call, meta.store)
    url = copying.check_url(call, meta.copy_from)
    asked = JobInput(place=url, stores=(store,), kills=True, size_bytes=image.size_bytes, md5=image.md5)
    await beginning.begin(call, image, JobKind.WEB_DOWNLOAD, asked, _QUEUED)


async def _activate_empty(call: Call, image: ImageRecord) -> ImageRecord:
    """An image of no bytes needs no store."""
    active = await call.library.ask(lambda registry: registry.move(image.id, _QUEUED, State.ACTIVE, size_bytes=0))
    if active is None:
        raise ApiError(409, f"Image {image.id} is not queued any more")
    return active
