"""How a view begins a job, and has one cancelled."""

from __future__ import annotations

import uuid

import msgspec

from mover.library import answers
from mover.library.call import Call
from mover.library.errors import ApiError
from mover.library.jobs.records import Job, JobInput, JobKind, NewJob
from mover.library.records import ImageRecord
from mover.library.registry.errors import JobTaken
from mover.library.states import State

# These need what only this host has: a disk, or data that were staged here.
_BOUND = frozenset({JobKind.DISK, JobKind.EXPORT, JobKind.GLANCE_DIRECT})


async def begin(
    call: Call,
    image: ImageRecord,
    kind: JobKind,
    asked: JobInput,
    from_states: frozenset[State],
    to_state: State | None = None,
) -> Job:
    """A job for an image in one of `from_states`. Raises ApiError 409 if it is in another, or has a job."""
    library = call.library

    def new() -> NewJob:
        return NewJob(
            id=str(uuid.uuid4()),
            image_id=image.id,
            kind=kind,
            input=msgspec.structs.replace(asked, request_id=answers.request_id(call.request)),
            owner=call.caller.tenant,
            user=call.caller.user,
            host=library.host if kind in _BOUND else None,
            holds=kind is not JobKind.EXPORT,
        )

    try:
        job = await library.ask(lambda registry: registry.jobs.begin(new(), from_states, to_state))
    except JobTaken:
        raise ApiError(409, f"Image {image.id} has a job already: see /v2/images/{image.id}/tasks") from None
    if job is None:
        raise ApiError(409, f"Image {image.id} is being changed by others: it is not {_words(from_states)} any more")
    library.nudge()
    return job


def _words(states: frozenset[State]) -> str:
    return " or ".join(sorted(states))


async def cancel(call: Call, job: Job) -> None:
    """Ask that it be cancelled. Raises ApiError 409 if it has ended."""
    if not await call.library.ask(lambda registry: registry.jobs.cancel(job.id)):
        raise ApiError(409, f"Task {job.id} has ended already")
    call.library.nudge()
