"""The registry itself: one method for each thing that is asked or changed, one transaction each.

A change of an image is made to the revision that the caller has seen, and a move from the states that the caller
names: what has changed meanwhile is left alone, and the answer is None. Nobody waits for anybody.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, delete, func, insert, literal_column, select, update
from sqlalchemy.exc import IntegrityError

from mover.library.queries import Query
from mover.library.records import Change, ImageRecord, Location, LocationStatus, Member, MemberStatus, NewImage
from mover.library.registry import rows
from mover.library.registry.asked import asked, changed, plain
from mover.library.registry.engine import CONNECTIONS, open_engine, reading, writing
from mover.library.registry.errors import IdTaken, MemberTaken, TooMany
from mover.library.registry.hosts import Hosts, not_seen_for
from mover.library.registry.jobs import Jobs, ask_to_cancel, holders, may_publish
from mover.library.registry.query import rare_ones, statement
from mover.library.registry.tables import IMAGES, JOBS, LOCATIONS, MEMBERS, PROPERTIES, TAGS
from mover.library.registry.transfers import Transfers
from mover.library.states import GONE, READABLE, State, check_moves


class Registry:
    """All library images. Methods may be called from any thread."""

    def __init__(
        self,
        database: str,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        connections: int = CONNECTIONS,
    ) -> None:
        self._engine = open_engine(database, connections)
        self._clock_us = clock_us
        self.hosts = Hosts(self._engine)
        self.jobs = Jobs(self._engine, clock_us)
        self.transfers = Transfers(self._engine, clock_us)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    # -- asking ------------------------------------------------------------------------------------------------

    @asked
    def get(self, image_id: str) -> ImageRecord | None:
        """The image, also one that was deleted."""
        with reading(self._engine) as connection:
            return _get(connection, image_id)

    @asked
    def find(self, query: Query) -> list[ImageRecord]:
        """One page of a list."""
        if query.limit == 0:
            return []
        with reading(self._engine) as connection:
            found = statement(query, rare_ones(connection, query))
            return rows.images(connection, connection.execute(found).all())

    @asked
    def members(self, image_id: str) -> list[Member]:
        """Who the image is shared with, in order of their names."""
        with reading(self._engine) as connection:
            found = select(MEMBERS).where(MEMBERS.c.image_id == image_id).order_by(MEMBERS.c.member)
            return rows.members(connection.execute(found))

    @asked
    def member(self, image_id: str, member: str) -> Member | None:
        """One member of the image."""
        with reading(self._engine) as connection:
            found = select(MEMBERS).where(MEMBERS.c.image_id == image_id, MEMBERS.c.member == member)
            return next(iter(rows.members(connection.execute(found))), None)

    @asked
    def shared_with(self, member: str) -> list[Member]:
        """The memberships of a tenant in images that are there, in order of the images' ids."""
        with reading(self._engine) as connection:
            alive = select(IMAGES.c.id).where(IMAGES.c.deleted_at_us.is_(None))
            found = select(MEMBERS).where(MEMBERS.c.member == member, MEMBERS.c.image_id.in_(alive))
            return rows.members(connection.execute(found.order_by(MEMBERS.c.image_id)))

    # -- images ------------------------------------------------------------------------------------------------

    @asked
    def create(self, new: NewImage) -> ImageRecord:
        """Make an image, QUEUED. Raises IdTaken."""
        now = self._clock_us()
        values = {"id": new.id, "state": State.QUEUED, "visibility": new.visibility, **new.facts}
        values = {"created_at_us": now, "updated_at_us": now, **values}
        try:
            with self._writing() as connection:
                connection.execute(insert(IMAGES).values(plain(values)))
                _set_properties(connection, new.id, new.properties)
                _set_tags(connection, new.id, new.tags)
                return _must_get(connection, new.id)
        except IntegrityError as error:
            raise IdTaken(new.id) from error

    @asked
    def change(self, image: ImageRecord, change: Change) -> ImageRecord | None:
        """Change what `image` has become since it was read; None if it has become something else meanwhile."""
        with self._writing() as connection:
            now = max(self._clock_us(), image.updated_at_us + 1)
            values = {"updated_at_us": now, **change.facts, "revision": image.revision + 1}
            same = (IMAGES.c.id == image.id, IMAGES.c.revision == image.revision, IMAGES.c.deleted_at_us.is_(None))
            if not changed(connection, update(IMAGES).where(*same).values(plain(values))):
                return None
            if change.properties is not None:
                connection.execute(delete(PROPERTIES).where(PROPERTIES.c.image_id == image.id))
                _set_properties(connection, image.id, change.properties)
            if change.tags is not None:
                connection.execute(delete(TAGS).where(TAGS.c.image_id == image.id))
                _set_tags(connection, image.id, change.tags)
            return _must_get(connection, image.id)

    @asked
    def move(
        self,
        image_id: str,
        from_states: frozenset[State],
        to_state: State,
        *,
        held_by: str | None = None,
        free: bool = False,
        location: Location | None = None,
        **facts: Any,
    ) -> ImageRecord | None:
        """Compare and set: if the image is in one of `from_states`, and held by the upload with the token `held_by` if
        one is named, or by none if it must be `free`, it goes to `to_state` and gets `facts` (columns) and `location`;
        no upload holds it any more, unless `facts` name one.

        None if it is not. Raises IllegalMove.
        """
        check_moves(from_states, to_state)
        with self._writing() as connection:
            where = [IMAGES.c.id == image_id, IMAGES.c.state.in_([str(state) for state in from_states])]
            if held_by is not None:
                where.append(IMAGES.c.upload == held_by)
            if free:
                where.append(IMAGES.c.upload.is_(None))
            values = {"upload": None, "holder": None, **facts, "state": to_state, "updated_at_us": self._clock_us()}
            moved = update(IMAGES).where(*where).values(**plain(values), revision=IMAGES.c.revision + 1)
            if not changed(connection, moved):
                return None
            if location is not None:
                connection.execute(insert(LOCATIONS).values(rows.location_values(image_id, location)))
            return _must_get(connection, image_id)

    def begin_upload(
        self,
        image_id: str,
        from_states: frozenset[State],
        holder: str,
        to_state: State = State.SAVING,
        token: str | None = None,
    ) -> ImageRecord | None:
        """Have `holder` (HOST/PROCESS, a front end) receive the image: to `to_state`, with a new token in `upload`."""
        token = token or secrets.token_hex(16)
        return self.move(image_id, from_states, to_state, free=True, upload=token, holder=holder)

    @asked
    def delete(self, image_id: str, *, delayed: bool = False) -> ImageRecord | None:
        """Delete an image that is not protected; the record as it is then, whose locations wait to be removed.

        `delayed`: one that has bytes becomes PENDING_DELETE. None if it is protected, or gone already.
        """
        with self._writing() as connection:
            image = _get(connection, image_id)
            if image is None or image.state in GONE or image.protected:
                return None
            now = self._clock_us()
            state = State.PENDING_DELETE if delayed and image.location is not None else State.DELETED
            check_moves(frozenset({image.state}), state)
            # The same questions again: between reading and writing, PostgreSQL lets others write.
            where = (IMAGES.c.id == image_id, IMAGES.c.revision == image.revision, IMAGES.c.protected.is_(False))
            values = {"state": state, "deleted_at_us": now, "updated_at_us": now, "upload": None, "holder": None}
            gone = update(IMAGES).where(*where).values(**plain(values), revision=image.revision + 1)
            if not changed(connection, gone):
                return None
            waits = {"status": str(LocationStatus.PENDING_DELETE)}
            connection.execute(update(LOCATIONS).where(LOCATIONS.c.image_id == image_id).values(waits))
            connection.execute(delete(MEMBERS).where(MEMBERS.c.image_id == image_id))
            ask_to_cancel(connection, JOBS.c.image_id == image_id, now)
            return _must_get(connection, image_id)

    @asked
    def drop_copy(self, image_id: str, location: Location) -> ImageRecord | None:
        """A copy of an image that has another one is to be removed; None if it is the last, or gone already."""
        with self._writing() as connection:
            image = _get(connection, image_id)
            if image is None or image.state not in READABLE:
                return None
            left = [one for one in image.locations if one.status is LocationStatus.ACTIVE]
            if len(left) < 2 or location.number not in [one.number for one in left]:
                return None
            same = (IMAGES.c.id == image_id, IMAGES.c.revision == image.revision)
            if not changed(connection, update(IMAGES).where(*same).values(revision=image.revision + 1)):
                return None
            waits = {"status": str(LocationStatus.PENDING_DELETE)}
            connection.execute(update(LOCATIONS).where(LOCATIONS.c.number == location.number).values(waits))
            return _must_get(connection, image_id)

    # -- members -----------------------------------------------------------------------------------------------

    @asked
    def add_member(self, image_id: str, member: str, *, can_share: bool, status: MemberStatus, limit: int) -> Member:
        """Share the image with a tenant. Raises MemberTaken and TooMany."""
        try:
            with self._writing() as connection:
                return self._add_member(connection, image_id, member, can_share, status, limit)
        except IntegrityError as error:
            raise MemberTaken from error

    def _add_member(
        self,
        connection: Connection,
        image_id: str,
        member: str,
        can_share: bool,
        status: MemberStatus,
        limit: int,
    ) -> Member:
        # The image's row is locked first, so that two who add the last one come one after the other.
        changed(connection, update(IMAGES).where(IMAGES.c.id == image_id).values(revision=IMAGES.c.revision + 1))
        count = connection.scalar(select(func.count()).select_from(MEMBERS).where(MEMBERS.c.image_id == image_id))
        if count is not None and count >= limit:
            raise TooMany("members", limit)
        now = self._clock_us()
        new = Member(image_id, member, can_share, status, now, now)
        connection.execute(insert(MEMBERS).values(plain(msgspec.structs.asdict(new))))
        return new

    @asked
    def change_member(self, image_id: str, member: str, **facts: Any) -> Member | None:
        """Change `status` or `can_share` of a member; None if there is no such member."""
        with self._writing() as connection:
            where = (MEMBERS.c.image_id == image_id, MEMBERS.c.member == member)
            values = plain({**facts, "updated_at_us": self._clock_us()})
            if not changed(connection, update(MEMBERS).where(*where).values(values)):
                return None
            return rows.members(connection.execute(select(MEMBERS).where(*where)))[0]

    @asked
    def remove_member(self, image_id: str, member: str) -> bool:
        """End a membership; False if there was none."""
        with self._writing() as connection:
            where = (MEMBERS.c.image_id == image_id, MEMBERS.c.member == member)
            return changed(connection, delete(MEMBERS).where(*where))

    @asked
    def replace_members(self, image_id: str, wanted: dict[str, bool | None], limit: int) -> None:
        """Have exactly these members, accepted; None keeps an old member's `can_share`. Raises TooMany."""
        if len(wanted) > limit:
            raise TooMany("members", limit)
        with self._writing() as connection:
            old = connection.execute(select(MEMBERS).where(MEMBERS.c.image_id == image_id))
            before = {one.member: one for one in rows.members(old)}
            connection.execute(delete(MEMBERS).where(MEMBERS.c.image_id == image_id))
            now = self._clock_us()
            for member, can_share in wanted.items():
                known = before.get(member)
                shares = can_share if can_share is not None else known is not None and known.can_share
                created = known.created_at_us if known is not None else now
                new = Member(image_id, member, shares, MemberStatus.ACCEPTED, created, now)
                connection.execute(insert(MEMBERS).values(plain(msgspec.structs.asdict(new))))

    # -- after a crash, and in the background ------------------------------------------------------------------

    @asked
    def holders(self) -> list[str]:
        """Who receives images or runs jobs, HOST/PROCESS, or has died while doing so; of all hosts."""
        with reading(self._engine) as connection:
            receiving = select(IMAGES.c.holder).where(IMAGES.c.holder.is_not(None)).distinct()
            return sorted({*connection.scalars(receiving), *holders(connection)})

    @asked
    def release(self, holder: str, host_dead_s: float | None = None) -> int:
        """What `holder` was receiving when it died is QUEUED again, what it ran is PENDING; how many of both.

        With `host_dead_s` only if its host has not been seen for so long, in this moment.
        """
        if host_dead_s is not None and not self.hosts.dead([holder.partition("/")[0]], host_dead_s):
            return 0
        jobs = self.jobs.release(holder)
        with self._writing() as connection:
            receiving = [str(State.SAVING), str(State.UPLOADING)]
            held = [IMAGES.c.holder == holder, IMAGES.c.state.in_(receiving)]
            if host_dead_s is not None:
                held.append(not_seen_for(connection, holder.partition("/")[0], host_dead_s))
            values = {"state": str(State.QUEUED), "upload": None, "holder": None}
            queued = update(IMAGES).where(*held).values(**values, revision=IMAGES.c.revision + 1)
            return jobs + int(connection.execute(queued).rowcount)

    def tell_waiting(self, own: str, host_dead_s: float) -> None:
        """Jobs that only another host can do say so, if it has not been seen for so long."""
        hosts = self.jobs.waited_for() - {own}
        for host in self.hosts.dead(hosts, host_dead_s) if hosts else ():
            gone = self.hosts.name(host)
            self.jobs.tell(host, f"waits for host {gone}, which is gone: nobody else has what it needs")

    @asked
    def wanted(self, image_id: str, location: Location, upload: str = "") -> bool:
        """Whether bytes at `location` are the image's, or a job or upload under way may be about to register them: the
        upload with the token `upload`, if the store remembers it, else any.
        """
        with reading(self._engine) as connection:
            image = _get(connection, image_id)
            if image is None or may_publish(connection, image_id, location.uri):
                return image is not None
        if image.state is State.SAVING and upload in ("", image.upload):
            return True
        same = [one for one in image.locations if one.uri == location.uri]
        return any("" in (one.volume, location.volume) or one.volume == location.volume for one in same)

    @asked
    def to_remove(
        self, deleted_before_us: int, volumes: Collection[str] = (), shared: bool = True, limit: int = 100
    ) -> list[tuple[str, Location]]:
        """Locations whose bytes are to be removed: of images that are DELETED, or have been PENDING_DELETE so long, and
        copies that images have no more.

        Those in other volumes than `volumes` are other hosts' business; `shared` are those in none.
        """
        with reading(self._engine) as connection:
            gone = (IMAGES.c.state == str(State.DELETED)) | (IMAGES.c.deleted_at_us < deleted_before_us)
            due = gone | IMAGES.c.deleted_at_us.is_(None)
            here: ColumnElement[bool] = LOCATIONS.c.volume.in_(list(volumes))
            here = here | LOCATIONS.c.volume.is_(None) if shared else here
            found = select(LOCATIONS).join(IMAGES, IMAGES.c.id == LOCATIONS.c.image_id)
            # As the index says it: a bound parameter would not be known to be the same.
            doomed = LOCATIONS.c.status == literal_column(f"'{LocationStatus.PENDING_DELETE}'")
            return [
                (row.image_id, rows.location(row))
                for row in connection.execute(found.where(doomed, due, here).order_by(LOCATIONS.c.number).limit(limit))
            ]

    @asked
    def removed(self, image_id: str, location: Location) -> None:
        """The bytes at a location are gone; without another one, an image that was PENDING_DELETE is DELETED."""
        with self._writing() as connection:
            connection.execute(delete(LOCATIONS).where(LOCATIONS.c.number == location.number))
            left = select(LOCATIONS.c.number).where(LOCATIONS.c.image_id == image_id).exists()
            pending = (IMAGES.c.id == image_id, IMAGES.c.state == str(State.PENDING_DELETE), ~left)
            connection.execute(update(IMAGES).where(*pending).values(state=str(State.DELETED)))

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with writing(self._engine) as connection:
            yield connection


def _get(connection: Connection, image_id: str) -> ImageRecord | None:
    found = connection.execute(select(IMAGES).where(IMAGES.c.id == image_id)).all()
    return next(iter(rows.images(connection, found)), None)


def _must_get(connection: Connection, image_id: str) -> ImageRecord:
    image = _get(connection, image_id)
    assert image is not None
    return image


def _set_properties(connection: Connection, image_id: str, properties: dict[str, str | None]) -> None:
    if properties:
        values = [{"image_id": image_id, "name": name, "value": value} for name, value in properties.items()]
        connection.execute(insert(PROPERTIES), values)


def _set_tags(connection: Connection, image_id: str, tags: Sequence[str]) -> None:
    if tags:
        connection.execute(insert(TAGS), [{"image_id": image_id, "tag": tag} for tag in tags])
