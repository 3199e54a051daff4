"""The registry, the same on SQLite and on PostgreSQL: what is asked, what is changed, and who wins a race."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mover.library.jobs.records import Copy, JobInput, JobKind, NewJob, Outcome
from mover.library.queries import Query, Viewer
from mover.library.records import Change, ImageRecord, Location, MemberStatus, NewImage, Visibility
from mover.library.registry.errors import IdTaken, MemberTaken, TooMany
from mover.library.registry.registry import Registry
from mover.library.states import IllegalMove, State
from tests.library.service import some_id

QUEUED, SAVING, ACTIVE = (frozenset({state}) for state in (State.QUEUED, State.SAVING, State.ACTIVE))
ADMIN = Viewer("admins", is_admin=True)
PLACE = Location("here", "file:///images/one", {"mountpoint": "/images"})
RACERS = 8


def make(registry: Registry, visibility: Visibility = Visibility.SHARED, **more: Any) -> ImageRecord:
    """A new image of the tenant `owner`."""
    facts = {"owner": "owner", **more.pop("facts", {})}
    return registry.create(NewImage(id=some_id(), visibility=visibility, facts=facts, **more))


def activate(registry: Registry, image: ImageRecord) -> ImageRecord:
    """The image with data at PLACE."""
    held = registry.begin_upload(image.id, QUEUED, "host/1")
    assert held is not None
    active = registry.move(image.id, SAVING, State.ACTIVE, held_by=held.upload, location=PLACE, size_bytes=7)
    assert active is not None
    return active


def test_what_was_created_is_what_is_read(registry: Registry) -> None:
    """All that an image is made of comes back as it went in, from either database."""
    facts = {
        "name": "naïve 'name'; --",
        "min_disk_gb": 2**31 - 1,
        "size_bytes": 2**62,
        "protected": True,
        "hidden": False,
    }
    image = make(registry, facts=facts, properties={"a": "b", "null": None, "Ünï": "✓"}, tags=("y", "x"))
    assert registry.get(image.id) == image
    assert (image.state, image.revision, image.tags) == (State.QUEUED, 1, ("x", "y"))
    assert image.properties == {"a": "b", "null": None, "Ünï": "✓"}
    assert {name: getattr(image, name) for name in facts} == facts


def test_an_id_is_given_once(registry: Registry) -> None:
    """An id that was deleted is not given again, either."""
    image = make(registry)
    registry.delete(image.id)
    with pytest.raises(IdTaken):
        registry.create(NewImage(id=image.id, visibility=Visibility.PUBLIC))


def test_a_change_of_what_has_changed_is_none(registry: Registry) -> None:
    """Who changes an image has seen what it is: of two changes to one revision the second is refused."""
    seen = make(registry, properties={"a": "1"}, tags=("t",))
    changed = registry.change(seen, Change(facts={"name": "first"}, properties={"b": "2"}, tags=()))
    assert changed is not None
    assert (changed.name, changed.properties, changed.tags) == ("first", {"b": "2"}, ())
    assert changed.updated_at_us > seen.updated_at_us
    assert registry.change(seen, Change(facts={"name": "second"})) is None
    assert registry.get(seen.id) == changed


def test_a_move_is_made_from_the_states_it_names(registry: Registry) -> None:
    """Compare and set: what is in another state, or held by another upload, stays as it is."""
    image = make(registry)
    assert registry.move(image.id, SAVING, State.ACTIVE) is None
    held = registry.begin_upload(image.id, QUEUED, "host/1")
    assert held is not None
    assert registry.move(image.id, SAVING, State.ACTIVE, held_by="another") is None
    active = registry.move(image.id, SAVING, State.ACTIVE, held_by=held.upload, location=PLACE, md5="d" * 32)
    assert active is not None
    assert (active.state, active.md5, active.upload) == (State.ACTIVE, "d" * 32, None)
    assert active.location is not None
    assert (active.location.store, active.location.uri, active.location.metadata) == (
        PLACE.store, PLACE.uri, PLACE.metadata,
    )  # fmt: skip


def test_a_move_that_the_table_does_not_have_is_a_bug(registry: Registry) -> None:
    """No caller can bring an image where no road leads."""
    image = make(registry)
    with pytest.raises(IllegalMove):
        registry.move(image.id, QUEUED, State.DEACTIVATED)
    assert registry.get(image.id) == image


def test_of_racing_uploads_one_wins(registry: Registry) -> None:
    """However many want to upload an image at once, exactly one holds it."""
    image = make(registry)
    with ThreadPoolExecutor(RACERS) as pool:
        held = list(pool.map(lambda number: registry.begin_upload(image.id, QUEUED, f"host/{number}"), range(RACERS)))
    assert sum(one is not None for one in held) == 1


def test_of_racing_adds_of_one_id_one_wins(registry: Registry) -> None:
    """The others are told that the id is taken, and nothing of theirs is left."""
    image_id = some_id()

    def add(number: int) -> bool:
        new = NewImage(id=image_id, visibility=Visibility.PUBLIC, properties={f"p{number}": "x"})
        try:
            registry.create(new)
        except IdTaken:
            return False
        return True

    with ThreadPoolExecutor(RACERS) as pool:
        assert list(pool.map(add, range(RACERS))).count(True) == 1
    image = registry.get(image_id)
    assert image is not None
    assert len(image.properties) == 1


def test_of_racing_deletes_one_deletes(registry: Registry) -> None:
    """One removes the bytes; the others find nothing to delete."""
    image = activate(registry, make(registry))
    with ThreadPoolExecutor(RACERS) as pool:
        gone = [one for one in pool.map(lambda _: registry.delete(image.id), range(RACERS)) if one is not None]
    assert len(gone) == 1
    assert [place.uri for place in gone[0].locations] == [PLACE.uri]


def test_racing_changes_are_all_made(registry: Registry) -> None:
    """Who comes second reads again: no change is lost."""
    image = make(registry)

    def add(number: int) -> None:
        while True:
            now = registry.get(image.id)
            assert now is not None
            if registry.change(now, Change(properties={**now.properties, f"p{number}": "x"})) is not None:
                return

    with ThreadPoolExecutor(RACERS) as pool:
        list(pool.map(add, range(RACERS)))
    found = registry.get(image.id)
    assert found is not None
    assert len(found.properties) == RACERS


def test_protected_images_are_not_deleted(registry: Registry) -> None:
    """Protection is looked at where the image is deleted, not before."""
    image = make(registry, facts={"protected": True})
    assert registry.delete(image.id) is None
    assert registry.get(image.id) == image


def test_deleting_leaves_the_bytes_to_be_removed(registry: Registry) -> None:
    """What a crash between the two leaves is found again; when the bytes are gone, nothing is left to do."""
    image = activate(registry, make(registry))
    assert registry.to_remove(deleted_before_us=2**62) == []
    registry.delete(image.id)
    [(image_id, place)] = registry.to_remove(deleted_before_us=0)
    assert (image_id, place.uri) == (image.id, PLACE.uri)
    assert registry.wanted(image.id, PLACE)
    registry.removed(image.id, place)
    assert registry.to_remove(deleted_before_us=2**62) == []
    assert not registry.wanted(image.id, PLACE)


def test_a_delayed_delete_waits(registry: Registry) -> None:
    """The bytes are due when the time has passed; then the image is deleted."""
    image = activate(registry, make(registry))
    pending = registry.delete(image.id, delayed=True)
    assert pending is not None
    assert pending.state is State.PENDING_DELETE
    assert pending.deleted_at_us is not None
    assert registry.to_remove(deleted_before_us=pending.deleted_at_us) == []
    [(_, place)] = registry.to_remove(deleted_before_us=pending.deleted_at_us + 1)
    registry.removed(image.id, place)
    gone = registry.get(image.id)
    assert gone is not None
    assert gone.state is State.DELETED


def test_what_the_dead_were_receiving_is_queued_again(registry: Registry) -> None:
    """And an upload that comes back from the dead does not publish: its token is worth nothing."""
    mine, other = make(registry), make(registry)
    held = registry.begin_upload(mine.id, QUEUED, "host/1.2")
    registry.begin_upload(other.id, QUEUED, "host2/1.2")
    assert sorted(registry.holders()) == ["host/1.2", "host2/1.2"]
    assert registry.release("host/1.2") == 1
    again, untouched = registry.get(mine.id), registry.get(other.id)
    assert again is not None
    assert untouched is not None
    assert (again.state, untouched.state) == (State.QUEUED, State.SAVING)
    assert held is not None
    registry.begin_upload(mine.id, QUEUED, "host/3.4")
    assert registry.move(mine.id, SAVING, State.ACTIVE, held_by=held.upload, location=PLACE) is None


def test_bytes_of_an_upload_under_way_are_wanted(registry: Registry) -> None:
    """A sweep leaves alone what is published and not yet registered, unless it is another upload's."""
    image, place = make(registry), Location("file", "file:///x")
    assert not registry.wanted(image.id, place)
    held = registry.begin_upload(image.id, QUEUED, "host/1")
    assert held is not None
    assert registry.wanted(image.id, place)
    assert registry.wanted(image.id, place, held.upload or "")
    assert not registry.wanted(image.id, place, "another upload's token")
    assert not registry.wanted(some_id(), place)


def test_what_a_job_has_forgotten_is_not_registered(registry: Registry) -> None:
    """Who takes copies back has removed their bytes, although the question that registers them is still on its way."""
    image, copied = make(registry), activate(registry, make(registry))
    made = Copy(Location("here", "file:///images/two"), 7, None, None, None)
    for kind, one in ((JobKind.DISK, image), (JobKind.COPY_IMAGE, copied)):
        asked = JobInput(stores=("here",))
        new = NewJob(id=some_id(), image_id=one.id, kind=kind, input=asked, owner=None, user=None, host=None)
        to = State.IMPORTING if one is image else None
        assert registry.jobs.begin(new, QUEUED if one is image else ACTIVE, to) is not None
        job = registry.jobs.claim("host", "host/1", 9)
        assert job is not None and job.id == new.id
        register = registry.jobs.made if one is image else registry.jobs.copied
        assert not register(job, [made], {})
        assert registry.jobs.note(job, Outcome((made,)))
        assert registry.jobs.note(job, Outcome())
        assert not register(job, [made], {})
        now = registry.get(one.id)
        assert now is not None and made.location.uri not in [place.uri for place in now.locations]
        assert registry.jobs.note(job, Outcome((made,)))
        assert register(job, [made], {})
        now = registry.get(one.id)
        assert now is not None and now.locations[-1].uri == made.location.uri
        assert not registry.jobs.note(job, Outcome())


def test_members(registry: Registry) -> None:
    """Members are added once, changed, removed, and gone with the image."""
    image = make(registry)
    first = registry.add_member(image.id, "a", can_share=False, status=MemberStatus.PENDING, limit=2)
    assert registry.member(image.id, "a") == first
    with pytest.raises(MemberTaken):
        registry.add_member(image.id, "a", can_share=True, status=MemberStatus.PENDING, limit=2)
    registry.add_member(image.id, "b", can_share=True, status=MemberStatus.ACCEPTED, limit=2)
    with pytest.raises(TooMany):
        registry.add_member(image.id, "c", can_share=False, status=MemberStatus.PENDING, limit=2)
    changed = registry.change_member(image.id, "a", status=MemberStatus.REJECTED)
    assert changed is not None
    assert changed.status is MemberStatus.REJECTED
    assert registry.change_member(image.id, "nobody", can_share=True) is None
    registry.replace_members(image.id, {"b": None, "c": None}, limit=2)
    assert [(one.member, one.can_share) for one in registry.members(image.id)] == [("b", True), ("c", False)]
    assert [one.image_id for one in registry.shared_with("b")] == [image.id]
    assert registry.remove_member(image.id, "b")
    assert not registry.remove_member(image.id, "b")
    registry.delete(image.id)
    assert registry.members(image.id) == []
    assert registry.shared_with("c") == []


def test_racing_members_stay_within_the_limit(registry: Registry) -> None:
    """The limit counts for those who come at once, too."""
    image = make(registry)

    def add(number: int) -> None:
        try:
            registry.add_member(image.id, f"m{number}", can_share=False, status=MemberStatus.PENDING, limit=3)
        except TooMany:
            pass

    with ThreadPoolExecutor(RACERS) as pool:
        list(pool.map(add, range(RACERS)))
    assert len(registry.members(image.id)) == 3


VISIBILITIES = {
    Visibility.PUBLIC: {"owner", "member", "pending", "stranger", None},
    Visibility.SHARED: {"owner", "member"},
    Visibility.PRIVATE: {"owner"},
    # Others see it by its id; in a list only who asks for it.
    Visibility.COMMUNITY: {"owner"},
}


@pytest.mark.parametrize("visibility", VISIBILITIES, ids=str)
def test_lists_show_what_their_reader_may_see(registry: Registry, visibility: Visibility) -> None:
    """One row of the visibility matrix a test."""
    image = make(registry, visibility)
    registry.add_member(image.id, "member", can_share=False, status=MemberStatus.ACCEPTED, limit=9)
    registry.add_member(image.id, "pending", can_share=False, status=MemberStatus.PENDING, limit=9)
    tenants = ("owner", "member", "pending", "stranger", None)
    seen = {tenant for tenant in tenants if registry.find(Query(Viewer(tenant)))}
    assert seen == VISIBILITIES[visibility]
    assert bool(registry.find(Query(ADMIN))) == (visibility is not Visibility.COMMUNITY)
    assert registry.find(Query(ADMIN, visibility=visibility)) == [registry.get(image.id)]


def test_member_status_chooses_what_is_shared(registry: Registry) -> None:
    """A tenant may list what was offered and not accepted."""
    image = make(registry)
    registry.add_member(image.id, "m", can_share=False, status=MemberStatus.PENDING, limit=9)

    def seen(status: MemberStatus | None) -> bool:
        return bool(registry.find(Query(Viewer("m"), member_status=status)))

    assert [seen(MemberStatus.ACCEPTED), seen(MemberStatus.PENDING), seen(None)] == [False, True, True]


def test_deleted_images_are_listed_only_when_asked_for(registry: Registry) -> None:
    """Three ways to look: what is there, what is gone, both."""
    there, gone = make(registry), make(registry)
    registry.delete(gone.id)

    def ids(deleted: bool | None) -> set[str]:
        return {image.id for image in registry.find(Query(ADMIN, deleted=deleted))}

    assert ids(None) == {there.id}
    assert ids(True) == {gone.id}
    assert ids(False) == {there.id, gone.id}


def test_a_page_of_none_is_empty(registry: Registry) -> None:
    """A limit of 0 is a limit."""
    make(registry)
    assert registry.find(Query(ADMIN, limit=0)) == []
