"""`/visor/images`: list, look at, read, make, change, delete."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from mover.front import sanic_seam
from mover.front.sanic_seam import Sent
from mover.library import answers as common
from mover.library import deletes, reading, references, uploads
from mover.library.call import Call
from mover.library.callers import check_change, owner_of_new
from mover.library.checks import PAGE_MOST, check_properties_count
from mover.library.errors import ApiError
from mover.library.queries import Query
from mover.library.records import Change, ImageRecord, NewImage, Visibility
from mover.library.seam import Incoming, Kept, Span, named
from mover.library.states import READABLE, State
from mover.library.times import to_v2
from mover.library.visor import answers, filters, meta, words
from mover.library.visor.meta import Meta
from mover.library.visor.words import Shown

if TYPE_CHECKING:
    from mover.library.registry.registry import Registry

# VISOR's server names itself so to those who stream; its clients may look for it.
STREAM = ("X-Stream", "Goliath")
# Data may come to what has none: reserved, or failed before.
_EMPTY = frozenset({State.QUEUED, State.FAILED})
Show = Callable[[ImageRecord, str], Shown]


def _base(call: Call) -> str:
    return call.url(call.library.settings.visor_prefix)


async def _send_image(call: Call, image: ImageRecord) -> Sent:
    return await answers.send(call, {"image": words.detail(image, _base(call))})


# -- lists -----------------------------------------------------------------------------------------------------


async def list_brief(call: Call) -> Sent:
    """All images that the caller may see: public ones and the caller's own, in short."""
    return await _list(call, words.brief)


async def list_detail(call: Call) -> Sent:
    """The same, with all there is to know."""
    return await _list(call, words.detail)


async def _list(call: Call, show: Show) -> Sent:
    listing = filters.parse(call.arguments(), call.caller)
    base = _base(call)

    async def shown() -> AsyncIterator[Shown]:
        async for image in _all(call, listing.query):
            if listing.matches(words.detail(image, base)):
                yield show(image, base)

    return await answers.send_list(call, shown())


async def _all(call: Call, query: Query) -> AsyncIterator[ImageRecord]:
    """Images of all pages."""
    page = await call.library.ask(partial(_find, query=query))
    while page:
        for image in page:
            yield image
        if len(page) < query.limit:
            return
        query = msgspec.structs.replace(query, marker=page[-1])
        page = await call.library.ask(partial(_find, query=query))


def _find(registry: Registry, query: Query) -> list[ImageRecord]:
    return registry.find(query)


# -- one image -------------------------------------------------------------------------------------------------


async def head(call: Call, image_id: str) -> Sent:
    """The metadata, in headers."""
    image = await call.image(image_id)
    sent = words.headers(image, _base(call))
    return await sanic_seam.reply(call.request, 200, [*sent, ("Content-Length", "0")])


async def read(call: Call, image_id: str) -> Sent:
    """The data, and the metadata in headers; nothing while there is no data."""
    image = await call.image(image_id)
    if image.state is State.DEACTIVATED and not call.caller.is_admin:
        raise ApiError(403, f"Image {image.id} is deactivated")
    size = (image.size_bytes or 0) if image.state in READABLE else 0
    sent = [*words.headers(image, _base(call)), common.OCTETS, STREAM, ("Content-Length", str(size))]
    if image.location is None or size == 0:
        return await sanic_seam.reply(call.request, 200, sent)
    return await reading.send(call, image, Span(0, size), 200, sent)


async def delete(call: Call, image_id: str) -> Sent:
    """Delete it, with its data; what it was."""
    image = await call.image(image_id)
    check_change(call.caller, image, hides_shared=False)
    if image.protected:
        raise deletes.protected(image)
    await deletes.delete(call.library, image)
    return await _send_image(call, image)


async def delete_all(call: Call) -> Sent:
    """Delete all that the caller may delete: an admin every image, a user their own. What is protected stays."""
    owned = () if call.caller.is_admin else (("owner", "eq", call.caller.tenant),)
    conditions: Any = (("protected", "eq", False), *owned)
    query = Query(call.caller.viewer, conditions, visibility="all", sort=(("id", False),), limit=PAGE_MOST)
    async for image in _all(call, query):
        try:
            await deletes.delete(call.library, image)
        except ApiError as error:
            if error.status not in (403, 404):  # protected, or gone, since it was listed
                raise
    return await sanic_seam.reply(call.request, 200, [("Content-Length", "0")])


# -- make and change -------------------------------------------------------------------------------------------


async def create(call: Call) -> Sent:
    """Make an image, with its data if there is a body."""
    has_body = call.body_bytes != 0
    given = meta.parse(sanic_seam.header_values(call.request), has_body)
    meta.check_new(given)
    await _check_request(call, given, has_body)
    new = await _new_image(call, given, has_body or given.location is not None)
    referred = await references.look(call.library, given.location, given.size_bytes, given.store)
    image = await call.library.ask(lambda registry: registry.create(new))
    if referred is not None:
        image = await references.take(call.library, image, referred, _EMPTY, 404)
    elif has_body:
        image = await _receive(call, image, given)
    return await _send_image(call, image)


async def _new_image(call: Call, given: Meta, has_body: bool) -> NewImage:
    facts = dict(given.facts)
    facts["owner"] = owner_of_new(call.caller, facts.get("owner"))
    facts |= meta.formats(facts.get("disk_format"), has_body)
    facts |= {"size_bytes": given.size_bytes, "md5": given.md5}
    properties = _merged({}, await _properties(call, given))
    check_properties_count(len(properties), call.library.settings.properties)
    visibility = given.visibility or Visibility.PUBLIC
    return NewImage(id=str(uuid.uuid4()), visibility=visibility, facts=facts, properties=properties)


async def change(call: Call, image_id: str) -> Sent:
    """Change the metadata that is given, and take the data if there is a body."""
    has_body = call.body_bytes != 0
    given = meta.parse(sanic_seam.header_values(call.request), has_body)
    if not given.given and not has_body:
        raise ApiError(400, "Neither metadata nor data: send x-image-meta-* headers, a body, or both")
    has_data = has_body or given.location is not None
    image = await call.image(image_id)
    check_change(call.caller, image, hides_shared=False)
    await _check_request(call, given, has_body)
    properties = await _properties(call, given)
    _check_kept(image, given, has_data)
    reserved = image.size_bytes if image.state is State.QUEUED else None
    size_bytes = reserved if given.size_bytes is None else given.size_bytes
    referred = await references.look(call.library, given.location, size_bytes, given.store)
    image = await call.library.change(image, lambda now: _change(call, now, given, properties, has_data))
    if referred is not None:
        image = await references.take(call.library, image, referred, _EMPTY, 404)
    elif has_body:
        image = await _receive(call, image, given)
    return await _send_image(call, image)


def _change(
    call: Call, now: ImageRecord, given: Meta, properties: dict[str, str | None], has_data: bool
) -> Change | None:
    _check_kept(now, given, has_data)
    facts: dict[str, Any] = dict(given.facts)
    if not call.caller.is_admin:
        facts.pop("owner", None)
    if given.visibility is not None and words.access(now.visibility) != words.access(given.visibility):
        facts["visibility"] = given.visibility
    if now.state in _EMPTY:
        facts |= _expected(now, given, has_data)
    else:
        facts.pop("disk_format", None)  # it is what it was
    merged = _merged(now.properties, properties)
    check_properties_count(len(merged), call.library.settings.properties)
    if not facts and merged == now.properties:
        return None
    return Change(facts=facts, properties=merged if merged != now.properties else None)


def _expected(now: ImageRecord, given: Meta, has_data: bool) -> dict[str, Any]:
    """The columns that say what data must be: of what failed, nothing is expected of the next."""
    wanted = given.facts.get("disk_format", now.disk_format)
    anew = has_data and now.state is State.FAILED
    expected = {"size_bytes": given.size_bytes, "md5": given.md5}
    facts: dict[str, Any] = {name: value for name, value in expected.items() if anew or value is not None}
    if wanted != now.disk_format or (has_data and (wanted is None or now.container_format is None)):
        facts |= meta.formats(wanted, has_data)
    return facts


def _merged(old: Mapping[str, str | None], new: Mapping[str, str | None]) -> dict[str, str | None]:
    kept = {name: value for name, value in old.items() if name not in new}
    return kept | {name: value for name, value in new.items() if value is not None}


def _check_kept(now: ImageRecord, given: Meta, has_data: bool) -> None:
    """Raise ApiError for what cannot change any more."""
    if has_data and now.state not in _EMPTY:
        raise ApiError(409, f"Image {now.id} is {words.status(now.state)}: data goes to locked ones and after an error")
    if given.status is not None and given.status != words.status(now.state):
        raise ApiError(400, "The status is not set by clients")
    if now.state in _EMPTY:
        return
    image_format = given.facts.get("disk_format", now.disk_format)
    kept = {
        "size": (given.size_bytes, now.size_bytes),
        "checksum": (given.md5, now.md5),
        "format": (image_format or meta.NO_FORMAT, now.disk_format or meta.NO_FORMAT),
        "store": (given.store, now.location and now.location.store),
    }
    for name, (wanted, value) in kept.items():
        if wanted is not None and wanted != value:
            raise ApiError(400, f"The {name} of an image that is {words.status(now.state)} does not change")


async def _check_request(call: Call, given: Meta, has_body: bool) -> None:
    """Raise ApiError 400 before anything is made or changed."""
    if has_body:
        call.check_octets(400)
    if given.store is not None:
        stores = await call.library.carrier.stores()
        store = named(stores, given.store)
        if store is None:
            ids = ", ".join(store.id for store in stores)
            raise ApiError(400, f"There is no store {given.store[:80]!r}: it must be one of {ids}")
        if store.read_only and given.location is None:
            raise ApiError(400, f"Store {given.store} is read only: nothing can be uploaded to it")


async def _properties(call: Call, given: Meta) -> dict[str, str | None]:
    """All properties that the metadata is, kernel and ramdisk looked at. None where one is to go."""
    found = dict(given.properties)
    for name, image_id in (("kernel", given.kernel), ("ramdisk", given.ramdisk)):
        if image_id is not None:
            found[words.PROPERTIES[name]] = await _companion(call, name, image_id) if image_id else None
    if given.store is not None:
        found["store"] = given.store
    return found


async def _companion(call: Call, kind: str, image_id: str) -> str:
    """The id of an image of this type that the caller may see. Raises ApiError 400."""
    try:
        image = await call.image(image_id)
    except ApiError:
        raise ApiError(400, f"The {kind} {image_id[:80]!r} is no image") from None
    if kind not in (image.properties.get("type"), words.TYPE_OF.get(image.disk_format or "")):
        raise ApiError(400, f"The image with id {image.id} is not a {kind} image.")
    return image.id


# -- data ------------------------------------------------------------------------------------------------------


async def _receive(call: Call, image: ImageRecord, given: Meta) -> ImageRecord:
    """Take the body as the data; whatever goes wrong, the image's status is error, and another upload may follow."""
    store = given.store or image.properties.get("store")
    incoming = Incoming(image, length=call.body_bytes, size_bytes=image.size_bytes, md5=image.md5, store=store)
    received = await uploads.receive(call.library, call.request, incoming, State.FAILED, 404, _EMPTY)
    assert not isinstance(received, Kept), "VISOR does not resume"
    uploaded_at = {"uploaded_at": to_v2(time.time_ns() // 1000)}
    return await call.library.change(received, lambda now: Change(properties={**now.properties, **uploaded_at}))
