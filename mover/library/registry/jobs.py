"""The registry's jobs: one method for each thing that is asked or changed, one transaction each.

A job and the image that it makes change together: who sees an image IMPORTING finds its job, and one whose job has
ended is ACTIVE, or as it was before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, Row, Select, delete, func, insert, or_, select, text, update
from sqlalchemy.exc import IntegrityError

from mover.library.jobs.records import IMPORTING, Copy, Job, JobInput, JobKind, NewJob, Outcome
from mover.library.jobs.states import LIVE, JobState, check_move
from mover.library.registry import rows
from mover.library.registry.asked import asked, changed, plain
from mover.library.registry.engine import reading, writing
from mover.library.registry.errors import JobTaken
from mover.library.registry.tables import IMAGES, JOBS, LOCATIONS, PROPERTIES
from mover.library.states import READABLE, State, check_moves

_LIVE = tuple(str(state) for state in LIVE)
# What an import shows of itself as properties of the image, as Glance does.
TO_STORES = "os_glance_importing_to_stores"
FAILED_STORES = "os_glance_failed_import"
IMPORT_TASK = "os_glance_import_task"  # there while it is under way


class Jobs:
    """All jobs. Methods may be called from any thread."""

    def __init__(self, engine: Engine, clock_us: Callable[[], int]) -> None:
        self._engine = engine
        self._clock_us = clock_us

    # -- asking ------------------------------------------------------------------------------------------------

    @asked
    def get(self, job_id: str) -> Job | None:
        """One job."""
        with reading(self._engine) as connection:
            return _get(connection, job_id)

    @asked
    def of_image(self, image_id: str) -> list[Job]:
        """An image's jobs, the newest first."""
        with reading(self._engine) as connection:
            newest = (JOBS.c.created_at_us.desc(), JOBS.c.id)
            return _jobs(connection, select(JOBS).where(JOBS.c.image_id == image_id).order_by(*newest))

    @asked
    def page(self, limit: int, marker: Job | None, states: frozenset[JobState] | None = None) -> list[Job]:
        """A page of all jobs, the newest first, after the marker."""
        with reading(self._engine) as connection:
            found = select(JOBS).order_by(JOBS.c.created_at_us.desc(), JOBS.c.id.desc()).limit(limit)
            if states is not None:
                found = found.where(JOBS.c.state.in_([str(state) for state in states]))
            if marker is not None:
                at = marker.created_at_us
                older = (JOBS.c.created_at_us == at) & (JOBS.c.id < marker.id)
                found = found.where(or_(JOBS.c.created_at_us < at, older))
            return _jobs(connection, found)

    @asked
    def next_due_us(self, host: str) -> int | None:
        """When the next job that this host may run is due; None if there is none."""
        with reading(self._engine) as connection:
            due = select(func.min(JOBS.c.due_at_us)).where(*_may_run(host))
            found: int | None = connection.scalar(due)
            return found

    # -- a job's life ------------------------------------------------------------------------------------------

    @asked
    def begin(self, new: NewJob, from_states: frozenset[State], to_state: State | None = None) -> Job | None:
        """Make a job for an image in one of `from_states`, which goes to `to_state` with it, held by the job.

        None if the image is in another state. Raises JobTaken if another job has the image.
        """
        if to_state is not None:
            check_moves(from_states, to_state)
        now = self._clock_us()
        times = dict.fromkeys(("created_at_us", "updated_at_us", "due_at_us"), now)
        values = {
            "id": new.id, "image_id": new.image_id, "kind": new.kind, "state": JobState.PENDING,
            "input": _json(new.input), "outcome": _json(Outcome()), "message": "", "owner": new.owner, "user": new.user,
            "host": new.host, "holds": new.image_id if new.holds else None, "cancel": False, "done_bytes": 0,
            "size_bytes": new.input.size_bytes, "tries": 0, **times,
        }  # fmt: skip
        try:
            with writing(self._engine) as connection:
                if not self._take_image(connection, new, from_states, to_state):
                    return None
                connection.execute(insert(JOBS).values(plain(values)))
                if new.input.shown_stores:
                    _show(connection, new.image_id, new.input.shown_stores, {}, new.id)
                return _get(connection, new.id)
        except IntegrityError as error:
            raise JobTaken from error

    def _take_image(
        self, connection: Connection, new: NewJob, from_states: frozenset[State], to_state: State | None
    ) -> bool:
        """With `upload` NULL nobody else is at it: who stages data holds the image until they have come."""
        where = [IMAGES.c.id == new.image_id, IMAGES.c.state.in_([str(state) for state in from_states])]
        where.append(IMAGES.c.upload.is_(None))
        values: dict[str, Any] = {"revision": IMAGES.c.revision + 1}
        if to_state is not None:
            token = new.id.replace("-", "")
            values |= {"state": str(to_state), "upload": token, "holder": None, "updated_at_us": self._clock_us()}
        return changed(connection, update(IMAGES).where(*where).values(**values))

    @asked
    def claim(self, host: str, holder: str, most: int) -> Job | None:
        """Have `holder`, a front end of `host`, run the job that is due first; None if there is none, or `most` run."""
        with writing(self._engine) as connection:
            if self._engine.dialect.name == "postgresql":  # two front ends of a host count one after the other
                connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:host))"), {"host": host})
            running = select(func.count()).select_from(JOBS)
            mine = JOBS.c.holder.startswith(f"{host}/", autoescape=True)
            if (connection.scalar(running.where(mine, JOBS.c.state == str(JobState.RUNNING))) or 0) >= most:
                return None
            due = (*_may_run(host), JOBS.c.due_at_us <= self._clock_us())
            first = select(JOBS.c.id).where(*due).order_by(JOBS.c.due_at_us, JOBS.c.id).limit(1)
            job_id = connection.scalar(first)
            if job_id is None:
                return None
            where = (JOBS.c.id == job_id, JOBS.c.state == str(JobState.PENDING))
            check_move(JobState.PENDING, JobState.RUNNING)
            values = {"state": str(JobState.RUNNING), "holder": holder, "updated_at_us": self._clock_us()}
            taken = changed(connection, update(JOBS).where(*where).values(**values, tries=JOBS.c.tries + 1))
            return _get(connection, job_id) if taken else None

    @asked
    def progress(self, job: Job, done_bytes: int, size_bytes: int | None, moved: bool) -> bool | None:
        """Tell how far it is: whether it is to be cancelled; None if it is the holder's no more.

        After bytes have `moved` it is tried as often again as at the beginning.
        """
        with writing(self._engine) as connection:
            values = {"done_bytes": done_bytes, "size_bytes": size_bytes, "updated_at_us": self._clock_us()}
            if moved:
                values["tries"] = 1
            if not changed(connection, update(JOBS).where(*_held(job)).values(**values)):
                return None
            return bool(connection.scalar(select(JOBS.c.cancel).where(JOBS.c.id == job.id)))

    @asked
    def note(self, job: Job, outcome: Outcome) -> bool:
        """Keep how far it is for a successor, and show it on the image; False if it is the holder's no more."""
        with writing(self._engine) as connection:
            values = {"outcome": _json(outcome), "updated_at_us": self._clock_us()}
            if not changed(connection, update(JOBS).where(*_held(job)).values(**values)):
                return False
            if job.input.shown_stores:
                done = {copy.location.store for copy in outcome.copies} | set(outcome.failed)
                left = [store for store in job.input.stores if store not in done]
                _show(connection, job.image_id, left, outcome.failed, job.id)
            return True

    @asked
    def take_queued(self, job: Job) -> bool:
        """v1's import begins: the image goes to SAVING, held by the job, if it does not already."""
        with writing(self._engine) as connection:
            mine = (IMAGES.c.id == job.image_id, IMAGES.c.state == str(State.SAVING), IMAGES.c.upload == job.token)
            if connection.scalar(select(IMAGES.c.id).where(*mine)) is not None:
                return True
            check_moves(frozenset({State.QUEUED}), State.SAVING)
            queued = (IMAGES.c.id == job.image_id, IMAGES.c.state == str(State.QUEUED))
            values = {"state": str(State.SAVING), "upload": job.token, "updated_at_us": self._clock_us()}
            return changed(connection, update(IMAGES).where(*queued).values(**values, revision=IMAGES.c.revision + 1))

    @asked
    def again(self, job: Job, due_at_us: int, message: str) -> None:
        """It is to be tried again at that time; nothing happens if it is the holder's no more."""
        self._put_back(_held(job), message=message, due_at_us=due_at_us)

    @asked
    def leave(self, job: Job) -> None:
        """The holder ends: whoever claims the job goes on with it."""
        self._put_back(_held(job), due_at_us=self._clock_us())

    @asked
    def leave_others(self, holder: str, job_ids: Sequence[str]) -> int:
        """`holder` runs just these, and no other one that it has claimed; how many those were."""
        others = (JOBS.c.holder == holder, JOBS.c.state == str(JobState.RUNNING), JOBS.c.id.not_in(job_ids))
        return self._put_back(others, due_at_us=self._clock_us())

    @asked
    def hand_over(self, job: Job, host: str, message: str) -> None:
        """From now on it is that host's alone."""
        self._put_back(_held(job), host=host, message=message, due_at_us=self._clock_us())

    @asked
    def release(self, holder: str) -> int:
        """What `holder` ran when it died is PENDING again; how many jobs."""
        return self._put_back((JOBS.c.holder == holder, JOBS.c.state == str(JobState.RUNNING)))

    @asked
    def waited_for(self) -> set[str]:
        """The hosts that PENDING jobs are bound to."""
        bound = (JOBS.c.host.is_not(None), JOBS.c.state == str(JobState.PENDING))
        with reading(self._engine) as connection:
            return set(connection.scalars(select(JOBS.c.host).where(*bound).distinct()))

    @asked
    def tell(self, host: str, waits: str) -> None:
        """PENDING jobs that are bound to this host say that they wait for it."""
        bound = (JOBS.c.host == host, JOBS.c.state == str(JobState.PENDING), JOBS.c.message != waits)
        with writing(self._engine) as connection:
            connection.execute(update(JOBS).where(*bound).values(message=waits))

    def _put_back(self, where: tuple[Any, ...], **facts: Any) -> int:
        check_move(JobState.RUNNING, JobState.PENDING)
        values = {"state": str(JobState.PENDING), "holder": None, "updated_at_us": self._clock_us(), **facts}
        with writing(self._engine) as connection:
            return int(connection.execute(update(JOBS).where(*where).values(**values)).rowcount)

    @asked
    def cancel(self, job_id: str) -> bool:
        """Ask whoever runs it, or will, to cancel it; False if it has ended."""
        with writing(self._engine) as connection:
            return ask_to_cancel(connection, JOBS.c.id == job_id, self._clock_us())

    # -- its end -----------------------------------------------------------------------------------------------

    @asked
    def made(self, job: Job, copies: Sequence[Copy], failed: Mapping[str, str]) -> bool:
        """The image is ACTIVE with these copies, all of them noted, and the job DONE; False if the image, the job, or
        one of the copies is no more ours.
        """
        first = copies[0]
        facts: dict[str, Any] = {
            "size_bytes": first.size_bytes, "virtual_size_bytes": first.virtual_size_bytes, "md5": first.md5,
            "hash_algo": first.hash_algo, "hash_value": first.hash_value,
        }  # fmt: skip
        with writing(self._engine) as connection:
            held = (
                IMAGES.c.id == job.image_id,
                IMAGES.c.upload == job.token,
                IMAGES.c.state.in_([str(state) for state in IMPORTING]),
            )
            check_moves(IMPORTING, State.ACTIVE)
            values = {**facts, "state": str(State.ACTIVE), "upload": None, "holder": None}
            values |= {"updated_at_us": self._clock_us(), "revision": IMAGES.c.revision + 1}
            if not self._has(connection, job, copies) or not changed(
                connection, update(IMAGES).where(*held).values(values)
            ):
                return False
            _add_copies(connection, job, copies, failed)
            return self._end(connection, job, JobState.DONE, "")

    @asked
    def copied(self, job: Job, copies: Sequence[Copy], failed: Mapping[str, str]) -> bool:
        """The image, which has its data, has these copies, too; the job is DONE. False as `made` says."""
        with writing(self._engine) as connection:
            there = (IMAGES.c.id == job.image_id, IMAGES.c.state.in_([str(state) for state in READABLE]))
            values = {"updated_at_us": self._clock_us(), "revision": IMAGES.c.revision + 1}
            if not self._has(connection, job, copies) or not changed(
                connection, update(IMAGES).where(*there).values(values)
            ):
                return False
            _add_copies(connection, job, copies, failed)
            return self._end(connection, job, JobState.DONE, "")

    @asked
    def end(self, job: Job, state: JobState, message: str) -> bool:
        """The job has ended without having made an image: one that it held may be made in another way.

        False if it is the holder's no more.
        """
        with writing(self._engine) as connection:
            if not self._end(connection, job, state, message):
                return False
            image_state = State.FAILED if job.input.kills and state is JobState.FAILED else State.QUEUED
            held = [IMAGES.c.id == job.image_id, IMAGES.c.upload == job.token]
            held.append(IMAGES.c.state.in_([str(one) for one in IMPORTING]))
            values = {"state": str(image_state), "upload": None, "updated_at_us": self._clock_us()}
            queued = update(IMAGES).where(*held).values(**values, revision=IMAGES.c.revision + 1)
            connection.execute(queued)
            if image_state is State.FAILED:  # also one that it had not taken yet
                mine = (IMAGES.c.id == job.image_id, IMAGES.c.state == str(State.QUEUED))
                connection.execute(update(IMAGES).where(*mine).values(state=str(image_state)))
            if job.input.shown_stores:
                failed = {**job.outcome.failed, **dict.fromkeys(job.input.stores, "")}
                _show(connection, job.image_id, (), failed if state is JobState.FAILED else {})
            return True

    def _has(self, connection: Connection, job: Job, copies: Sequence[Copy]) -> bool:
        """Whether it is the holder's, and has noted these copies. Those that it has forgotten may be removed already:
        who is cancelled, or has waited too long for an answer, takes them back while his question is still on its way.
        """
        noted = connection.scalar(select(JOBS.c.outcome).where(*_held(job)).with_for_update())
        if noted is None:
            return False
        places = {copy.location.uri for copy in msgspec.json.decode(noted, type=Outcome).copies}
        return all(copy.location.uri in places for copy in copies)

    def _end(self, connection: Connection, job: Job, state: JobState, message: str) -> bool:
        check_move(JobState.RUNNING, state)
        now = self._clock_us()
        # What a URL's query holds may be a secret, and a ticket is one: nobody needs them any more.
        kept = msgspec.structs.replace(job.input, place=job.shown_place)
        values: dict[str, Any] = {"state": str(state), "holder": None, "holds": None, "message": message}
        values |= {"input": _json(kept), "updated_at_us": now, "ended_at_us": now}
        return changed(connection, update(JOBS).where(*_held(job)).values(values))

    @asked
    def prune(self, ended_before_us: int) -> int:
        """Forget jobs that ended before; how many."""
        with writing(self._engine) as connection:
            return int(connection.execute(delete(JOBS).where(JOBS.c.ended_at_us < ended_before_us)).rowcount)


def ask_to_cancel(connection: Connection, which: Any, now_us: int) -> bool:
    """Live jobs are to be cancelled, as soon as may be; by any host, if nobody runs them."""
    live = (which, JOBS.c.state.in_(_LIVE))
    return changed(connection, update(JOBS).where(*live).values(cancel=True, due_at_us=now_us))


def holders(connection: Connection) -> list[str]:
    """Who runs jobs, or has died while doing so; of all hosts."""
    return list(connection.scalars(select(JOBS.c.holder).where(JOBS.c.holder.is_not(None)).distinct()))


def may_publish(connection: Connection, image_id: str, uri: str) -> bool:
    """Whether a job has bytes at `uri` that are to be the image's, or may be about to have."""
    found = _jobs(connection, select(JOBS).where(JOBS.c.image_id == image_id, JOBS.c.state.in_(_LIVE)))
    return any(
        job.state is JobState.RUNNING or any(copy.location.uri == uri for copy in job.outcome.copies) for job in found
    )


def _may_run(host: str) -> tuple[Any, ...]:
    mine = or_(JOBS.c.host.is_(None), JOBS.c.host == host, JOBS.c.cancel.is_(True))
    return (JOBS.c.state == str(JobState.PENDING), mine)


def _held(job: Job) -> tuple[Any, ...]:
    return (JOBS.c.id == job.id, JOBS.c.holder == job.holder, JOBS.c.state == str(JobState.RUNNING))


def _add_copies(connection: Connection, job: Job, copies: Sequence[Copy], failed: Mapping[str, str]) -> None:
    for copy in copies:
        connection.execute(insert(LOCATIONS).values(rows.location_values(job.image_id, copy.location)))
    if job.input.shown_stores:
        _show(connection, job.image_id, (), failed)


def _show(
    connection: Connection,
    image_id: str,
    to_stores: Sequence[str],
    failed: Mapping[str, str],
    task: str | None = None,
) -> None:
    where = (PROPERTIES.c.image_id == image_id, PROPERTIES.c.name.in_((TO_STORES, FAILED_STORES, IMPORT_TASK)))
    connection.execute(delete(PROPERTIES).where(*where))
    shown = {TO_STORES: ",".join(to_stores), FAILED_STORES: ",".join(failed)}
    if task is not None:
        shown[IMPORT_TASK] = task
    values = [{"image_id": image_id, "name": name, "value": value} for name, value in shown.items()]
    connection.execute(insert(PROPERTIES), values)


def _get(connection: Connection, job_id: str) -> Job | None:
    return next(iter(_jobs(connection, select(JOBS).where(JOBS.c.id == job_id))), None)


def _jobs(connection: Connection, found: Select[Any]) -> list[Job]:
    return [_job(row) for row in connection.execute(found)]


def _job(row: Row[Any]) -> Job:
    facts = dict(row._mapping)
    del facts["holds"]
    facts["kind"], facts["state"] = JobKind(facts["kind"]), JobState(facts["state"])
    facts["input"] = msgspec.json.decode(facts["input"], type=JobInput)
    facts["outcome"] = msgspec.json.decode(facts["outcome"], type=Outcome)
    return Job(**facts)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
