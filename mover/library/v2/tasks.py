"""`/v2/tasks` and `/v2/images/{id}/tasks`: jobs, as Glance shows its tasks."""

from __future__ import annotations

from mover.front.sanic_seam import Sent
from mover.library.call import Call
from mover.library.checks import is_uuid, page_limit
from mover.library.errors import ApiError
from mover.library.jobs import beginning
from mover.library.jobs.records import Job, JobKind
from mover.library.jobs.states import JobState
from mover.library.times import to_v2
from mover.library.v2.filters import links

# Glance has four words, and `state` beside them tells what was cancelled.
STATUS = {
    JobState.PENDING: "pending",
    JobState.RUNNING: "processing",
    JobState.DONE: "success",
    JobState.FAILED: "failure",
    JobState.CANCELLED: "failure",
}
# Ended jobs are forgotten then: Glance's task_time_to_live.
KEPT_US = 48 * 3600 * 1_000_000


def shown(job: Job) -> dict[str, object]:
    """A job as a task."""
    return {
        "id": job.id,
        "type": "api_image_export" if job.kind is JobKind.EXPORT else "api_image_import",
        "status": STATUS[job.state],
        "state": "cancelling" if job.cancel and job.is_live else str(job.state),
        "image_id": job.image_id,
        "owner": job.owner,
        "user_id": job.user,
        "request_id": job.input.request_id,
        "input": _input(job),
        "result": {"image_id": job.image_id} if job.state is JobState.DONE else None,
        "message": job.message,
        "bytes_done": job.done_bytes,
        "bytes_total": job.size_bytes,
        "tries": job.tries,
        "created_at": to_v2(job.created_at_us),
        "updated_at": to_v2(job.updated_at_us),
        "expires_at": None if job.ended_at_us is None else to_v2(job.ended_at_us + KEPT_US),
        "self": f"/v2/tasks/{job.id}",
        "schema": "/v2/schemas/task",
    }


def _input(job: Job) -> dict[str, object]:
    """What was asked, without what may be a secret."""
    if job.kind is JobKind.EXPORT:
        return {"image_id": job.image_id, "target": job.shown_place}
    method: dict[str, object] = {"name": str(job.kind)}
    if job.kind is JobKind.WEB_DOWNLOAD:
        method["uri"] = job.shown_place
    if job.kind is JobKind.DISK:
        method |= {"source": job.shown_place, "digests": job.input.digests}
    stores = {"stores": list(job.input.stores), "all_stores_must_succeed": job.input.must_all}
    return {"image_id": job.image_id, "import_req": {"method": method, **stores}}


async def list_tasks(call: Call) -> Sent:
    """A page of all jobs, for admins."""
    if not call.caller.is_admin:
        raise ApiError(403, "Only an admin lists all tasks; /v2/images/ID/tasks has those of an image")
    arguments = call.arguments()
    limit = page_limit(_last(arguments, "limit"), call.library.settings.page)
    marker = None
    if marker_id := _last(arguments, "marker"):
        marker = await call.library.ask(lambda registry: registry.jobs.get(marker_id))
        if marker is None:
            raise ApiError(400, f"Invalid marker {marker_id[:80]!r}: there is no such task")
    status = _last(arguments, "status")
    states = None if status is None else frozenset(state for state, word in STATUS.items() if word == status)
    found = await call.library.ask(lambda registry: registry.jobs.page(limit, marker, states))
    answer = {
        "tasks": [shown(job) for job in found],
        "schema": "/v2/schemas/tasks",
        **links("/v2/tasks", arguments, found, limit),
    }
    return await call.send_json(200, answer)


def _last(arguments: dict[str, list[str]], name: str) -> str | None:
    given = arguments.get(name)
    return given[-1] if given else None


async def of_image(call: Call, image_id: str) -> Sent:
    """The jobs of an image that the caller may see."""
    image = await call.image(image_id)
    found = await call.library.ask(lambda registry: registry.jobs.of_image(image.id))
    return await call.send_json(200, {"tasks": [shown(job) for job in found if _may_see(call, job)]})


async def show(call: Call, task_id: str) -> Sent:
    """One job: for admins, and for the tenant that began it."""
    return await call.send_json(200, shown(await _find(call, task_id)))


async def cancel(call: Call, task_id: str) -> Sent:
    """Have a job cancelled: 202, and it has ended when it is shown so."""
    await beginning.cancel(call, await _find(call, task_id))
    return await call.send(202)


async def _find(call: Call, task_id: str) -> Job:
    job = None
    if is_uuid(task_id):
        job = await call.library.ask(lambda registry: registry.jobs.get(task_id.lower()))
    if job is None or not _may_see(call, job):
        raise ApiError(404, f"Task not found: {task_id[:80]}")
    return job


def _may_see(call: Call, job: Job) -> bool:
    return call.caller.is_admin or (job.owner is not None and job.owner == call.caller.tenant)
