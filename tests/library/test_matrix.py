"""Who may do what: the visibility matrix, by tokens of four tenants, through both APIs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.harness.mover import ROOT, Mover
from tests.library.conftest import FAKE
from tests.library.service import PATCH_21, Service, some_id

DATA = b"data of an image"
WHO = ("owner", "member", "sharer", "stranger", "admin", "anonymous")


def mover(state: Path, *arguments: str) -> str:
    """What the command `mover` prints."""
    command = [sys.executable, "-m", "mover", *arguments, f"--state-dir={state}", "--config=/dev/null"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    return done.stdout.decode().strip()


@dataclass(frozen=True)
class House:
    """One service, asked by everybody."""

    service: Service
    tokens: dict[str, str | None]

    def by(self, who: str) -> Service:
        """The service as `who` asks it."""
        return self.service.as_(self.tokens[who])


@pytest.fixture(scope="module")
def house(module_room: Path) -> Iterator[House]:
    """A service with a token for each; whoever has none may read what is public."""
    with ExitStack() as stack:
        service = Mover(module_room, {}, {"library": {"anonymous": True}}, front_ends=1, program=FAKE)
        stack.callback(service.close)
        tokens: dict[str, str | None] = {"anonymous": None}
        for who in WHO[:-1]:
            role = ["--role=admin"] if who == "admin" else ["--role=member"]
            tokens[who] = mover(service.state_dir, "token", "add", f"--user={who}", f"--tenant={who}", *role)
        yield House(Service(service.start()), tokens)
        service.assert_log_clean()


@pytest.fixture
def images(house: House) -> dict[str, str]:
    """An image of each visibility of the owner's, with data; the shared one has two members."""
    owner = house.by("owner")
    found = {kind: owner.active(DATA, visibility=kind)["id"] for kind in ("private", "shared", "public", "community")}
    path = f"/v1/images/{found['shared']}/members"
    assert owner.ask("PUT", f"{path}/member").status == 204
    assert owner.json("PUT", f"{path}/sharer", {"member": {"can_share": True}}).status == 204
    return found


# {visibility: {who: seen}}: 200 where it is seen, else 404.
SEEN = {
    "private": {"owner", "admin"},
    "shared": {"owner", "member", "sharer", "admin"},
    "public": set(WHO),
    "community": set(WHO),
}
LISTED = SEEN | {"community": {"owner"}}
# Who sees an image and may not change it.
FORBIDDEN = {"private": set[str](), "shared": {"member", "sharer"}, "public": {"member", "sharer", "stranger"}}
FORBIDDEN["community"] = FORBIDDEN["public"]


def writing(kind: str, who: str, done: int, hidden: int, forbidden: int) -> int:
    """The status of a change that `who` tries."""
    if who == "anonymous":
        return 403
    return done if who in ("owner", "admin") else forbidden if who in FORBIDDEN[kind] else hidden


@pytest.mark.parametrize("kind", SEEN)
def test_who_sees_an_image(house: House, images: dict[str, str], kind: str) -> None:
    """By its id, in v1 and in v2; what is not seen is not there: 404, never 403."""
    for who in WHO:
        status = 200 if who in SEEN[kind] else 404
        asker = house.by(who)
        paths = (f"/v2/images/{images[kind]}", f"/v2/images/{images[kind]}/file", f"/v1/images/{images[kind]}")
        assert [asker.ask("GET", path).status for path in paths] == [status] * 3, who
        assert asker.ask("HEAD", paths[2]).status == status, who


@pytest.mark.parametrize("kind", SEEN)
def test_who_lists_an_image(house: House, images: dict[str, str], kind: str) -> None:
    """Members that have accepted see it in their lists; admins of v1 look as everybody else unless they say other."""
    for who in WHO:
        asker, query = house.by(who), "limit=1000"
        v2 = {image["id"] for image in asker.listed(f"?{query}")}
        assert (images[kind] in v2) == ((who in LISTED[kind] and who != "anonymous") or kind == "public"), who
        detail = asker.done(200, asker.ask("GET", f"/v1/images/detail?{query}"))["images"]
        expected = kind == "public" or (who in LISTED[kind] - {"admin", "anonymous"})
        assert (images[kind] in {image["id"] for image in detail}) == expected, who
    admin = house.by("admin")
    everything = admin.done(200, admin.ask("GET", "/v1/images?is_public=None&limit=1000"))["images"]
    assert images[kind] in {image["id"] for image in everything}
    asked = {image["id"] for image in house.by("stranger").listed("?visibility=community&limit=1000")}
    assert (images[kind] in asked) == (kind == "community")


@pytest.mark.parametrize("kind", SEEN)
def test_who_changes_an_image(house: House, images: dict[str, str], kind: str) -> None:
    """Its owner and admins; v1 hides what is shared, and says 403 of what is public."""
    for who in WHO:
        asker, image_id = house.by(who), images[kind]
        v1 = writing(kind, who, 200, 404, 404 if kind == "shared" else 403)
        assert asker.ask("PUT", f"/v1/images/{image_id}", None, x_image_meta_min_ram="5").status == v1, who
        step = {"op": "replace", "path": "/min_disk", "value": 5}
        v2 = writing(kind, who, 200, 404, 403)
        assert asker.patch(image_id, step).status == v2, who
        assert asker.ask("PUT", f"/v2/images/{image_id}/tags/t").status == (204 if v2 == 200 else v2), who
        for action in ("deactivate", "reactivate"):
            answer = asker.ask("POST", f"/v2/images/{image_id}/actions/{action}")
            assert answer.status == (204 if v2 == 200 else v2), who


@pytest.mark.parametrize("kind", SEEN)
def test_who_deletes_an_image(house: House, images: dict[str, str], kind: str) -> None:
    """The same; those who may not, try first."""
    for who in ("member", "sharer", "stranger", "anonymous"):
        asker, image_id = house.by(who), images[kind]
        v1 = writing(kind, who, 200, 404, 404 if kind == "shared" else 403)
        assert asker.ask("DELETE", f"/v1/images/{image_id}").status == v1, who
        assert asker.ask("DELETE", f"/v2/images/{image_id}").status == writing(kind, who, 204, 404, 403), who
    assert house.by("owner" if kind == "private" else "admin").ask("DELETE", f"/v2/images/{images[kind]}").status == 204
    assert house.by("owner").ask("GET", f"/v1/images/{images[kind]}").status == 404


@pytest.mark.parametrize("kind", SEEN)
def test_who_shares_an_image_by_v1(house: House, images: dict[str, str], kind: str) -> None:
    """Owner, admins, and members that may share it on; for all others there is no such image."""
    for who in WHO:
        may = who in ("owner", "admin") or (kind == "shared" and who == "sharer")
        expected = 403 if who == "anonymous" else 204 if may else 404
        path = f"/v1/images/{images[kind]}/members"
        asker = house.by(who)
        assert asker.ask("PUT", f"{path}/somebody").status == expected, who
        assert asker.ask("DELETE", f"{path}/somebody").status == expected, who
        seen = who in ("owner", "admin") or (kind == "shared" and who in ("member", "sharer"))
        assert asker.ask("GET", path).status == (200 if seen else 404), who


def test_who_uploads(house: House) -> None:
    """Nobody puts data into another tenant's image."""
    for kind in SEEN:
        image = house.by("owner").create(visibility=kind)
        for who in ("member", "stranger", "anonymous"):
            expected = 403 if kind in ("public", "community") or who == "anonymous" else 404
            assert house.by(who).upload(image["id"], DATA).status == expected, who
        assert house.by("owner").show(image["id"])["status"] == "queued"


def test_members_speak_for_themselves(house: House) -> None:
    """v2: who was offered an image accepts it, sees it in lists, rejects it, sees it there no more."""
    owner, member, stranger = house.by("owner"), house.by("member"), house.by("stranger")
    image = owner.create()
    path = f"/v2/images/{image['id']}/members"
    assert owner.json("POST", path, {"member": "member"}).status == 200

    def lists(query: str = "") -> bool:
        return image["id"] in {one["id"] for one in member.listed(f"?limit=1000{query}")}

    assert (lists(), lists("&member_status=pending"), lists("&member_status=all")) == (False, True, True)
    assert member.ask("GET", f"/v2/images/{image['id']}").status == 200
    assert owner.json("PUT", f"{path}/member", {"status": "accepted"}).status == 403
    assert stranger.json("PUT", f"{path}/member", {"status": "accepted"}).status == 404
    assert member.json("PUT", f"{path}/member", {"status": "accepted"}).status == 200
    assert lists()
    assert [one["member_id"] for one in member.done(200, member.ask("GET", path))["members"]] == ["member"]
    assert member.json("POST", path, {"member": "x"}).status == 403
    assert member.ask("DELETE", f"{path}/member").status == 403
    assert member.json("PUT", f"{path}/member", {"status": "rejected"}).status == 200
    assert not lists()
    assert owner.ask("DELETE", f"{path}/member").status == 204
    assert member.ask("GET", f"/v2/images/{image['id']}").status == 404


def test_a_member_does_not_see_the_others(house: House, images: dict[str, str]) -> None:
    """v2 shows a member its own membership; the other's is not there."""
    member = house.by("member")
    path = f"/v2/images/{images['shared']}/members"
    assert [one["member_id"] for one in member.done(200, member.ask("GET", path))["members"]] == ["member"]
    assert member.ask("GET", f"{path}/member").status == 200
    assert member.ask("GET", f"{path}/sharer").status == 404
    assert house.by("owner").ask("GET", f"{path}/sharer").status == 200


def test_what_is_shared_with_a_tenant(house: House, images: dict[str, str]) -> None:
    """All of it for the tenant and for admins; for an owner what is theirs; for others nothing."""

    def shared(who: str) -> set[str]:
        found = house.by(who).done(200, house.by(who).ask("GET", "/v1/shared-images/member"))
        return {one["image_id"] for one in found["shared_images"]}

    assert all(images["shared"] in shared(who) for who in ("member", "admin", "owner"))
    assert shared("stranger") == shared("anonymous") == set()


def test_who_owns_what_is_made(house: House) -> None:
    """The maker's tenant; an admin may name another one, v1 ignores others' wish and v2 refuses it."""
    for who in ("owner", "admin"):
        asker = house.by(who)
        answer = asker.ask("POST", "/v1/images", None, x_image_meta_owner="else")
        assert asker.done(201, answer)["image"]["owner"] == ("else" if who == "admin" else "owner")
        answer = asker.json("POST", "/v2/images", {"owner": "else"})
        assert answer.status == (201 if who == "admin" else 403)
        image = asker.create()
        give = asker.patch(image["id"], {"op": "replace", "path": "/owner", "value": "else"})
        assert give.status == (200 if who == "admin" else 403)
        taken = asker.ask("PUT", f"/v1/images/{asker.create()['id']}", None, x_image_meta_owner="else")
        assert asker.done(200, taken)["image"]["owner"] == ("else" if who == "admin" else "owner")


def test_sizes_and_checksums_of_data_are_what_they_are(house: House, images: dict[str, str]) -> None:
    """v1: nobody but an admin gives others to an image that has its data."""
    for name, value in (("size", "7"), ("checksum", "d" * 32)):
        answer = house.by("owner").ask(
            "PUT", f"/v1/images/{images['private']}", None, **{f"x_image_meta_{name}": value}
        )
        assert answer.status == 403, name


def test_deactivated_data_is_for_admins(house: House, images: dict[str, str]) -> None:
    """v2: not even the owner reads it."""
    path = f"/v2/images/{images['private']}"
    assert house.by("owner").ask("POST", f"{path}/actions/deactivate").status == 204
    assert house.by("owner").ask("GET", f"{path}/file").status == 403
    assert house.by("admin").ask("GET", f"{path}/file").body == DATA


def test_deleted_images_are_for_admins(house: House, images: dict[str, str]) -> None:
    """v1 shows their records to nobody else."""
    path = f"/v1/images/{images['public']}"
    assert house.by("owner").ask("DELETE", path).status == 200
    assert [house.by(who).ask("HEAD", path).status for who in WHO] == [404, 404, 404, 404, 200, 404]
    listed = "/v1/images?deleted=True&limit=1000"
    found = house.by("owner").done(200, house.by("owner").ask("GET", listed))["images"]
    assert images["public"] not in {image["id"] for image in found}


WRITES: list[tuple[str, str, object]] = [
    ("POST", "/v1/images", None),
    ("POST", "/v2/images", {}),
    ("PUT", "/v1/images/{id}", None),
    ("PUT", "/v1/images/{id}/members", {"memberships": []}),
    ("PUT", "/v1/images/{id}/members/m", None),
    ("DELETE", "/v1/images/{id}", None),
    ("PATCH", "/v2/images/{id}", []),
    ("PUT", "/v2/images/{id}/tags/t", None),
    ("DELETE", "/v2/images/{id}", None),
    ("POST", "/v2/images/{id}/members", {"member": "m"}),
    ("PUT", "/v2/images/{id}/members/m", {"status": "accepted"}),
]


@pytest.mark.parametrize(("method", "path", "body"), WRITES, ids=str)
def test_the_anonymous_write_nothing(
    house: House, images: dict[str, str], method: str, path: str, body: object
) -> None:
    """403, whatever they try on what they see."""
    kind = {} if body is None else {"Content_Type": PATCH_21 if method == "PATCH" else "application/json"}
    data = None if body is None else json.dumps(body).encode()
    answer = house.by("anonymous").ask(method, path.format(id=images["public"]), data, **kind)
    assert answer.status == 403, answer


def test_tokens_that_are_none(house: House) -> None:
    """An unknown token is 401, for every path; none at all is the anonymous."""
    wrong = house.service.as_("wrong")
    for path in ("/v1/images", "/v2/images", f"/v2/images/{some_id()}/file", "/v2/schemas/image"):
        answer = wrong.ask("GET", path)
        assert (answer.status, "www-authenticate" in answer.headers) == (401, True), path
    assert wrong.ask("GET", "/versions").status == 200
    assert house.by("anonymous").ask("GET", "/v2/images").status == 200
    forged = {"X_Identity_Status": "Confirmed", "X_Tenant_Id": "owner", "X_Roles": "admin", "X_User_Id": "root"}
    assert wrong.ask("GET", "/v2/images", None, **forged).status == 401
    assert house.by("anonymous").json("POST", "/v2/images", {}, **forged).status == 403


def test_tokens_come_and_go(house: House) -> None:
    """`mover token` changes who is let in while the service runs; nothing keeps the token itself."""
    state = house.service.mover.state_dir
    made: dict[str, Any] = json.loads(mover(state, "token", "add", "--user=new", "--tenant=new", "--json"))
    asker = house.service.as_(made["token"])
    assert asker.ask("GET", "/v2/images").status == 200
    table = (state / "tokens.json").read_text()
    assert made["token"] not in table
    assert made["token"] not in house.service.mover.log()
    assert (state / "tokens.json").stat().st_mode & 0o777 == 0o600
    listed = json.loads(mover(state, "token", "list", "--json"))
    assert {key: made[key] for key in ("id", "user", "tenant", "roles")} in listed
    mover(state, "token", "remove", made["id"])
    assert asker.ask("GET", "/v2/images").status == 401


def test_a_table_that_is_broken_lets_nobody_in(house: House) -> None:
    """503 for everybody, and the log says why: an open door would be worse."""
    table = house.service.mover.state_dir / "tokens.json"
    before = table.read_bytes()
    try:
        table.write_text("{")
        assert [house.by(who).ask("GET", "/v2/images").status for who in ("admin", "anonymous")] == [503, 503]
        assert "the token table cannot be used" in house.service.mover.log()
    finally:
        table.write_bytes(before)
    assert house.by("admin").ask("GET", "/v2/images").status == 200
