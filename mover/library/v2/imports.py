"""`/v2/images/{id}/stage`, `/import`, `/export`: an image's data by jobs, as Glance imports them, and disks."""

from __future__ import annotations

from typing import Any

from mover.front.sanic_seam import Sent
from mover.library import staging
from mover.library.call import Call
from mover.library.callers import check_change
from mover.library.checks import TEXT, check_text
from mover.library.errors import ApiError
from mover.library.formats import check_complete
from mover.library.jobs import beginning, copying
from mover.library.jobs.records import IMPORTS, Job, JobInput, JobKind
from mover.library.jobs.states import JobState
from mover.library.records import ImageRecord
from mover.library.states import READABLE, State
from mover.library.statuses import status_of
from mover.library.v2 import images

# The states in which an image may be imported by a method.
FROM_STATES: dict[JobKind, frozenset[State]] = {
    JobKind.GLANCE_DIRECT: frozenset({State.UPLOADING}),
    JobKind.WEB_DOWNLOAD: frozenset({State.QUEUED}),
    JobKind.DISK: frozenset({State.QUEUED}),
    JobKind.COPY_IMAGE: READABLE,
}


async def stage(call: Call, image_id: str) -> Sent:
    """Take data that an import by `glance-direct` makes the image's."""
    image = await images.find_to_change(call, image_id)
    call.check_octets(415)
    await staging.stage(call.library, call.request, image, call.body_bytes)
    return await call.send(204)


# -- import ----------------------------------------------------------------------------------------------------


async def begin_import(call: Call, image_id: str) -> Sent:
    """Begin a job that makes the image's data, or more copies of them: 202."""
    image = await call.image(image_id)
    body = await call.json()
    kind, method = _method(body)
    check_change(call.caller, image, hides_shared=False)
    _check_state(image, kind)
    stores = await _stores(call, body, image, kind)
    must_all = _flag(body, "all_stores_must_succeed", True)
    if kind is not JobKind.COPY_IMAGE:
        check_complete(image.disk_format, image.container_format)
    asked = JobInput(
        place=_place(call, kind, method),
        stores=stores,
        must_all=must_all,
        digests=_flag(method, "digests", True) if kind is JobKind.DISK else True,
        resume=kind is JobKind.DISK and _flag(method, "resume", False) and await _was_of(call, image, method),
    )
    to_state = None if kind is JobKind.COPY_IMAGE else State.IMPORTING
    job = await beginning.begin(call, image, kind, asked, FROM_STATES[kind], to_state)
    return await _begun(call, job)


async def _begun(call: Call, job: Job) -> Sent:
    """Glance's answer has no body, and clients look for none; the Location is the job."""
    headers = [
        ("Location", call.url(f"/v2/tasks/{job.id}")),
        ("OpenStack-image-import-methods", ",".join(IMPORTS)),
    ]
    return await call.send(202, headers)


def _method(body: Any) -> tuple[JobKind, dict[str, Any]]:
    method = body.get("method") if isinstance(body, dict) else None
    name = method.get("name") if isinstance(method, dict) else None
    if not isinstance(method, dict) or not isinstance(name, str):
        raise ApiError(400, 'The body must be a JSON object with {"method": {"name": …}}')
    if name not in IMPORTS:
        raise ApiError(400, f"Unknown import method name '{name[:80]}': it is one of {', '.join(IMPORTS)}")
    return JobKind(name), method


def _check_state(image: ImageRecord, kind: JobKind) -> None:
    if image.state in FROM_STATES[kind]:
        return
    status = status_of(image.state)
    match kind:
        case JobKind.GLANCE_DIRECT:
            why = "Image needs to be staged before 'glance-direct' method can be used"
        case JobKind.COPY_IMAGE:
            why = "Only images with status active can be targeted for copying"
        case _:
            why = f"Image needs to be in 'queued' state to use '{kind}' method"
    raise ApiError(409, f"{why}; image {image.id} is {status}")


async def _stores(call: Call, body: dict[str, Any], image: ImageRecord, kind: JobKind) -> tuple[str, ...]:
    """Where it goes, each store once, in the order that was asked. Raises ApiError 400 and 409."""
    named, everywhere = body.get("stores"), _flag(body, "all_stores", False)
    header = call.header("x-image-meta-store")
    if named and everywhere:
        raise ApiError(400, "stores and all_stores exclude each other")
    known = {store.id: store for store in await call.library.carrier.stores() if not store.read_only}
    if everywhere:
        wanted = list(known)
    elif named:
        if not isinstance(named, list) or not all(isinstance(one, str) for one in named):
            raise ApiError(400, "stores must be a list of stores' ids")
        wanted = list(dict.fromkeys(named))
    elif header:
        wanted = [header]
    elif kind is JobKind.COPY_IMAGE:
        raise ApiError(400, "For copy-image either all_stores or stores must be specified")
    else:
        wanted = list(known)[:1]
    for one in wanted:
        if one not in known:
            raise ApiError(400, f"There is no store '{one[:80]}' that takes images")
    if not wanted:
        raise ApiError(410, "No store takes new images")
    return tuple(wanted) if kind is not JobKind.COPY_IMAGE else _without_copy(image, wanted, everywhere)


def _without_copy(image: ImageRecord, wanted: list[str], everywhere: bool) -> tuple[str, ...]:
    """The stores that have no copy yet, nor one that is being removed."""
    there = {location.store for location in image.locations}
    if not everywhere:
        for store in wanted:
            if store in there:
                raise ApiError(409, f"Image is already present at store '{store}'")
    left = tuple(store for store in wanted if store not in there)
    if not left:
        raise ApiError(409, "Image is already present at every store that takes images")
    return left


def _place(call: Call, kind: JobKind, method: dict[str, Any]) -> str:
    if kind is JobKind.WEB_DOWNLOAD:
        return copying.check_url(call, method.get("uri"))
    if kind is JobKind.DISK:
        return check_disk(call, "source", method.get("source"))
    return ""


def check_disk(call: Call, name: str, value: Any) -> str:
    """A disk of this host, by URL or ticket: only admins name one. Raises ApiError 400 and 403."""
    if not isinstance(value, str) or not value:
        raise ApiError(400, f"{name} is required: an NBD URL, or the id of a ticket")
    if not call.caller.is_admin:
        raise ApiError(403, "Only an admin names disks of the host")
    return check_text(name, value, copying.PLACE)


async def _was_of(call: Call, image: ImageRecord, method: dict[str, Any]) -> bool:
    """Whether the image's last job was of the same disk, and left off."""
    jobs = await call.library.ask(lambda registry: registry.jobs.of_image(image.id))
    made = [job for job in jobs if job.kind is not JobKind.EXPORT][:1]
    return any(
        job.kind is JobKind.DISK
        and job.state in (JobState.FAILED, JobState.CANCELLED)
        and job.input.place == method.get("source")
        for job in made
    )


def _flag(body: dict[str, Any], name: str, default: bool) -> bool:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ApiError(400, f"Invalid value {str(value)[:80]!r} of '{name}': it must be true or false")
    return value


# -- export ----------------------------------------------------------------------------------------------------


async def begin_export(call: Call, image_id: str) -> Sent:
    """Begin a job that writes the image onto a disk: 202."""
    image = await call.image(image_id)
    body = await call.json()
    target = check_disk(call, "target", body.get("target") if isinstance(body, dict) else None)
    if image.state not in READABLE or image.location is None:
        raise ApiError(409, f"Image {image.id} has no data: it is {status_of(image.state)}")
    asked = JobInput(place=target, size_bytes=image.size_bytes)
    return await _begun(call, await beginning.begin(call, image, JobKind.EXPORT, asked, READABLE))


# -- one copy --------------------------------------------------------------------------------------------------


async def remove_copy(call: Call, store: str, image_id: str) -> Sent:
    """Remove an image's copy from one store, never the last one."""
    image = await images.find_to_change(call, image_id)
    check_text("store", store, TEXT)
    location = next((one for one in image.copies if one.store == store), None)
    if location is None:
        raise ApiError(404, f"Image {image.id} has no copy in store '{store[:80]}'")
    if image.protected:
        raise ApiError(403, f"Image {image.id} is protected and cannot be deleted.")
    if len(image.copies) < 2:
        raise ApiError(403, f"Cannot delete image data from the only store containing it: '{store[:80]}'")
    await staging.remove_copy(call.library, image, location)
    return await call.send(204)
